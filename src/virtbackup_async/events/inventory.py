"""The events about backups that exist: `list`, `stats`, `pin` and `unpin`."""

from typing import ClassVar

from msgspec import Struct


class ListedBackup(Struct, frozen=True, gc=False):
    """One complete backup, as ``list`` shows it.

    ``state`` is ``good`` (``verify`` found it intact), ``unverified`` or ``damaged``. ``sequence``
    is the number of its definition among those of the domain, and ``definition_hash`` its hash.
    ``guest`` is a text that means only its guest: the domain's name, unless two guests of the
    target have it.
    """

    kind: ClassVar[str] = "backup"
    group: str
    domain: str
    backup: str
    date: str
    definition: str
    disks: tuple[str, ...]
    packager: str
    size_bytes: int | None
    stored_bytes: int | None
    quiesced: bool | None
    verified: bool | None = None
    verified_date: str | None = None
    pinned: bool = False
    not_quiesced: str | None = None
    lacks: tuple[str, ...] = ()
    note: str | None = None
    state: str = "unverified"
    date_unix: int = 0
    age_s: float = 0.0
    uuid: str | None = None
    host: str | None = None
    sequence: int | None = None
    definition_hash: str | None = None
    guest: str = ""


class ListedDomain(Struct, frozen=True):
    """A domain of a group that has no backup there; ``list --all`` shows it."""

    kind: ClassVar[str] = "domain"
    group: str
    domain: str


class BrokenBackup(Struct, frozen=True):
    """A backup that cannot be read: its definition is damaged, or data is missing.

    ``state`` is ``broken``; the date is that in its name, null if there is none.
    """

    kind: ClassVar[str] = "broken_backup"
    group: str
    domain: str
    backup: str
    definition: str
    error: str
    state: str = "broken"
    date: str | None = None
    date_unix: int | None = None
    age_s: float | None = None
    uuid: str | None = None
    guest: str = ""


class TargetUnreadable(Struct, frozen=True):
    """A group's target cannot be read, so its backups are unknown."""

    kind: ClassVar[str] = "target_unreadable"
    group: str
    target: str
    error: str


class UnclaimedBackups(Struct, frozen=True):
    """A target holds backups of domains in no group: no command takes care of them."""

    kind: ClassVar[str] = "unclaimed_backups"
    target: str
    domains: tuple[str, ...]
    backups: int


class TargetAccepted(Struct, frozen=True):
    """`accept` takes a domain's backups in a target as they are for what this host has seen.

    ``contradictions`` is what had been noticed. ``backup``, ``sequence`` and ``definition_hash``
    are those of its newest definition, null if there is none. With ``dry_run`` nothing was done.
    """

    kind: ClassVar[str] = "target_accepted"
    group: str
    domain: str
    target: str
    contradictions: tuple[str, ...]
    backup: str | None = None
    sequence: int | None = None
    definition_hash: str | None = None
    uuid: str | None = None
    dry_run: bool = False


class PinChanged(Struct, frozen=True):
    """A backup is pinned now, so that `clean` never removes it, or no longer."""

    kind: ClassVar[str] = "pin_changed"
    group: str
    domain: str
    backup: str
    definition: str
    pinned: bool
    uuid: str | None = None
    host: str | None = None


class DomainStats(Struct, frozen=True):
    """How much data a domain's backups in a group hold, and how much space they take.

    ``stored_bytes`` is what the backups added to the target when they were made.
    """

    kind: ClassVar[str] = "domain_stats"
    group: str
    domain: str
    backups: int
    size_bytes: int
    data_bytes: int
    stored_bytes: int
    uuid: str | None = None
    host: str | None = None
    guest: str = ""


class GroupStats(Struct, frozen=True):
    """The same for all domains of a group."""

    kind: ClassVar[str] = "group_stats"
    group: str
    domains: int
    backups: int
    size_bytes: int
    data_bytes: int
    stored_bytes: int


class DayStats(Struct, frozen=True):
    """The same for the existing backups of a group that were made on one day."""

    kind: ClassVar[str] = "day_stats"
    group: str
    day: str
    backups: int
    size_bytes: int
    data_bytes: int
    stored_bytes: int


class BackupStats(Struct, frozen=True):
    """The same for one backup, and how much space its removal alone would free."""

    kind: ClassVar[str] = "backup_stats"
    group: str
    domain: str
    backup: str
    date: str
    packager: str
    size_bytes: int
    data_bytes: int
    stored_bytes: int
    freed_bytes: int
    uuid: str | None = None
    host: str | None = None


class ReportWritten(Struct, frozen=True):
    """The page was written: whether every guest can be restored.

    ``standing`` is ``good``, ``look``, ``bad`` or ``unknown``, ``verdict`` the page's first
    sentence. ``restorable`` counts the guests with a good backup that is young enough.
    """

    kind: ClassVar[str] = "report_written"
    file: str
    verdict: str
    standing: str
    guests: int
    restorable: int
    length_bytes: int


class RepositoryStats(Struct, frozen=True):
    """How much data the backups in a target's repository hold, and how much space it takes.

    ``mapped_bytes`` counts the chunks of all images, ``chunk_bytes`` equal ones only once, and
    ``chunk_stored_bytes`` is their compressed size. A chunk counts in full, even if it is cut short
    by the end of its image.
    """

    kind: ClassVar[str] = "repository_stats"
    target: str
    backups: int
    data_bytes: int
    stored_bytes: int
    size_bytes: int
    mapped_bytes: int
    chunk_bytes: int
    chunk_stored_bytes: int

"""The events about backups that exist: `list`, `stats`, `pin` and `unpin`."""

from typing import ClassVar

from msgspec import Struct


class ListedBackup(Struct, frozen=True, gc=False):
    """One complete backup, as ``list`` shows it."""

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


class ListedDomain(Struct, frozen=True):
    """A domain that a group matches and that has no backup there, as ``list`` shows it if asked."""

    kind: ClassVar[str] = "domain"
    group: str
    domain: str


class BrokenBackup(Struct, frozen=True):
    """What should be a backup and cannot be read: its definition is damaged, or data is missing."""

    kind: ClassVar[str] = "broken_backup"
    group: str
    domain: str
    backup: str
    definition: str
    error: str


class TargetUnreadable(Struct, frozen=True):
    """A group's target cannot be read: which backups it holds is not known."""

    kind: ClassVar[str] = "target_unreadable"
    group: str
    target: str
    error: str


class UnclaimedBackups(Struct, frozen=True):
    """A target holds backups of domains that no group means: no command looks after them."""

    kind: ClassVar[str] = "unclaimed_backups"
    target: str
    domains: tuple[str, ...]
    backups: int


class PinChanged(Struct, frozen=True):
    """A backup is pinned now, so that `clean` never removes it, or is not any more."""

    kind: ClassVar[str] = "pin_changed"
    group: str
    domain: str
    backup: str
    definition: str
    pinned: bool


class DomainStats(Struct, frozen=True):
    """What a domain's backups in a group hold, and what they take.

    ``stored_bytes`` is what the packages grew by when they were made.
    """

    kind: ClassVar[str] = "domain_stats"
    group: str
    domain: str
    backups: int
    size_bytes: int
    data_bytes: int
    stored_bytes: int


class GroupStats(Struct, frozen=True):
    """The same of all domains of a group."""

    kind: ClassVar[str] = "group_stats"
    group: str
    domains: int
    backups: int
    size_bytes: int
    data_bytes: int
    stored_bytes: int


class DayStats(Struct, frozen=True):
    """What the backups of a group that are there and were made on a day hold and added."""

    kind: ClassVar[str] = "day_stats"
    group: str
    day: str
    backups: int
    size_bytes: int
    data_bytes: int
    stored_bytes: int


class BackupStats(Struct, frozen=True):
    """What one backup holds and takes, and how much room its removal alone would make."""

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


class RepositoryStats(Struct, frozen=True):
    """What the backups in a target's repository hold, and what all of it takes.

    ``mapped_bytes`` are the chunks that all images consist of, ``chunk_bytes`` those of them that
    differ from each other, ``chunk_stored_bytes`` what these were compressed to. A chunk counts
    whole, be it cut short by its image's end.
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

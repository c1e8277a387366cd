"""What there is: `list`, `pin` and `unpin`."""

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


class ListedDomain(Struct, frozen=True):
    """A domain that a group matches and that has no backup there, as ``list --all`` shows it."""

    kind: ClassVar[str] = "domain"
    group: str
    domain: str


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


class RepositoryStats(Struct, frozen=True):
    """What the backups in a target's repository hold, and what all of its packs take."""

    kind: ClassVar[str] = "repository_stats"
    target: str
    backups: int
    data_bytes: int
    stored_bytes: int

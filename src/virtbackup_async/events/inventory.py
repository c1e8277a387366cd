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

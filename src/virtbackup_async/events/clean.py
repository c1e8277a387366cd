"""The events of `clean`: what it removes, undoes or leaves."""

from typing import ClassVar

from msgspec import Struct


class CleanVerdict(Struct, frozen=True):
    """What `clean` or `forget` will do with a backup, and why; `--dry-run` stops there.

    ``occupied_bytes`` is what its own files take, ``stored_bytes`` what it added to the target when
    it was made; None if that was not recorded. ``broken``: no complete backup can be read from it;
    ``date`` is then that in its name, or empty.
    """

    kind: ClassVar[str] = "clean_verdict"
    group: str
    domain: str
    backup: str
    date: str
    definition: str
    keep: bool
    reasons: tuple[str, ...]
    occupied_bytes: int
    damaged: bool = False
    broken: bool = False
    stored_bytes: int | None = None
    uuid: str | None = None
    host: str | None = None


class RemovalPlanned(Struct, frozen=True):
    """What removing the backups of a target that would go frees; of `--dry-run` alone.

    ``freed_bytes`` is None where a damaged repository cannot tell.
    """

    kind: ClassVar[str] = "removal_planned"
    target: str
    backups: tuple[str, ...]
    freed_bytes: int | None


class BackupRemoved(Struct, frozen=True):
    """A backup was removed completely."""

    kind: ClassVar[str] = "backup_removed"
    group: str
    domain: str
    backup: str
    freed_bytes: int
    uuid: str | None = None


class BackupsForgotten(Struct, frozen=True):
    """What `forget` removed, or with `--dry-run` would remove, and the space that frees in all.

    In a repository that is the space of the chunks that no other backup needs.
    """

    kind: ClassVar[str] = "backups_forgotten"
    backups: tuple[str, ...]
    freed_bytes: int
    dry_run: bool


class CleanStopped(Struct, frozen=True):
    """A guest's data changed suddenly, so `clean` keeps its backups from before that.

    ``backup`` is the one that has the change, ``kept`` counts the backups that would be removed
    otherwise, and ``advice`` says what to do.
    """

    kind: ClassVar[str] = "clean_stopped"
    group: str
    domain: str
    backup: str
    reason: str
    kept: int
    advice: str
    error_code: str
    exit_code: int
    uuid: str | None = None


class ChangeAccepted(Struct, frozen=True):
    """The admin has said that the sudden change of a backup's data is no reason for alarm."""

    kind: ClassVar[str] = "change_accepted"
    group: str
    domain: str
    backup: str
    definition: str
    uuid: str | None = None


class RemovalFailed(Struct, frozen=True):
    """A backup could not be removed, or only in part; the next `clean` tries again."""

    kind: ClassVar[str] = "removal_failed"
    group: str
    domain: str
    backup: str
    error: str
    in_use: bool = False
    error_code: str | None = None
    advice: str | None = None
    uuid: str | None = None


class RepositorySwept(Struct, frozen=True):
    """`clean` has pruned the repository of a target: chunks that no backup needs are removed."""

    kind: ClassVar[str] = "repository_swept"
    target: str
    freed_bytes: int
    rewritten_bytes: int
    waiting_bytes: int
    stored_bytes: int
    unrewritten_bytes: int = 0


class LocksExtended(Struct, frozen=True):
    """The files of a target are locked for longer, by the Object Lock of its bucket.

    ``until`` is RFC 3339, by the store's clock.
    """

    kind: ClassVar[str] = "locks_extended"
    target: str
    objects: int
    until: str


class PendingFound(Struct, frozen=True):
    """A backup was started and not finished; `clean` is about to undo it."""

    kind: ClassVar[str] = "pending_found"
    group: str
    domain: str
    backup: str
    pending: str


class PendingUndone(Struct, frozen=True):
    """An unfinished backup is undone: the domain is on its own images, and no file is left."""

    kind: ClassVar[str] = "pending_undone"
    group: str
    domain: str
    backup: str


class PendingLeft(Struct, frozen=True):
    """An unfinished backup could not be undone, and why."""

    kind: ClassVar[str] = "pending_left"
    group: str
    domain: str
    backup: str
    pending: str
    error: str
    in_use: bool = False

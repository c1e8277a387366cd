"""What happens, said by the engine as values; the renderers of ``cli`` show them.

Each class is one line of ``--json``: its ``kind`` is the ``event`` key, its fields are the other
keys. Fields may be added later, never renamed (docs/json.md lists them).
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar


class Phase(StrEnum):
    """What a domain's backup is busy with."""

    WAITING = "waiting"
    PREPARING = "preparing"
    FREEZING = "freezing"
    COPYING = "copying"
    COMMITTING = "committing"
    FINISHING = "finishing"
    UNDOING = "undoing"


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The work of a command is known; nothing has been touched yet."""

    kind: ClassVar[str] = "run_started"
    command: str
    domains: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BackupStarted:
    """The intent is on disk; the domain's disks are about to be frozen and copied."""

    kind: ClassVar[str] = "backup_started"
    group: str
    domain: str
    backup: str
    disks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PhaseChanged:
    """A domain's work entered another phase; ``disk`` is set where it is one disk's alone."""

    kind: ClassVar[str] = "phase"
    domain: str
    phase: Phase
    disk: str | None = None


@dataclass(frozen=True, slots=True)
class DiskProgress:
    """Bytes of an image that have been moved. Holes count in neither number."""

    kind: ClassVar[str] = "disk_progress"
    domain: str
    disk: str
    done_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class DiskDone:
    """A disk is copied, and its domain is back on the disk's own image."""

    kind: ClassVar[str] = "disk_done"
    domain: str
    disk: str
    file: str
    size_bytes: int
    data_bytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class DiskSkipped:
    """A disk of the domain is not in the backup, and why."""

    kind: ClassVar[str] = "disk_skipped"
    domain: str
    disk: str
    reason: str


@dataclass(frozen=True, slots=True)
class Warned:
    """Something the admin should know; the work goes on."""

    kind: ClassVar[str] = "warning"
    message: str
    domain: str | None = None


@dataclass(frozen=True, slots=True)
class BackupDone:
    """The backup is complete: ``list`` shows it from now on.

    ``frozen_ms`` is how long the guest's file systems stood still, None if they were not frozen.
    ``quiesced`` is None where the domain was shut off: there was nothing to freeze.
    """

    kind: ClassVar[str] = "backup_done"
    group: str
    domain: str
    backup: str
    definition: str
    quiesced: bool | None
    frozen_ms: int | None
    data_bytes: int
    stored_bytes: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class BackupFailed:
    """There is no backup of the domain from this run. ``left_pending``: run ``clean``."""

    kind: ClassVar[str] = "backup_failed"
    group: str
    domain: str
    error: str
    exit_code: int
    cancelled: bool = False
    left_pending: bool = False


@dataclass(frozen=True, slots=True)
class RestoreStarted:
    """A backup was found and its target checked; its disks are about to be written."""

    kind: ClassVar[str] = "restore_started"
    domain: str
    backup: str
    target: str
    disks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RestoreDone:
    """All disks are whole, on disk, and have the digest that was recorded.

    ``verified`` is False where the backup carries no digest (virt-backup wrote it).
    """

    kind: ClassVar[str] = "restore_done"
    domain: str
    backup: str
    target: str
    files: tuple[str, ...]
    verified: bool
    data_bytes: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class DomainDefined:
    """libvirt has a domain on the restored images now.

    ``rebased`` names the images whose headers were changed: they name the restored images below
    them now, in place of the original ones.
    """

    kind: ClassVar[str] = "domain_defined"
    domain: str
    uuid: str
    backup: str
    started: bool
    rebased: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VerifyStarted:
    """A backup is about to be read back."""

    kind: ClassVar[str] = "verify_started"
    group: str
    domain: str
    backup: str
    disks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VerifyDone:
    """A backup was read back from its first byte to its last, and is what was recorded.

    ``digests`` is False where it carries none (virt-backup wrote it): it could only be read.
    """

    kind: ClassVar[str] = "verify_done"
    group: str
    domain: str
    backup: str
    definition: str
    digests: bool
    data_bytes: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class VerifyFailed:
    """A backup cannot be restored as it was recorded, or could not be read now."""

    kind: ClassVar[str] = "verify_failed"
    group: str
    domain: str
    backup: str
    error: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class ListedBackup:
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


@dataclass(frozen=True, slots=True)
class ListedDomain:
    """A domain that a group matches and that has no backup there, as ``list --all`` shows it."""

    kind: ClassVar[str] = "domain"
    group: str
    domain: str


@dataclass(frozen=True, slots=True)
class CleanVerdict:
    """What `clean` means to do with a complete backup, and why; `--dry-run` does no more."""

    kind: ClassVar[str] = "clean_verdict"
    group: str
    domain: str
    backup: str
    date: str
    definition: str
    keep: bool
    reasons: tuple[str, ...]
    occupied_bytes: int


@dataclass(frozen=True, slots=True)
class BackupRemoved:
    """Nothing is left of a backup."""

    kind: ClassVar[str] = "backup_removed"
    group: str
    domain: str
    backup: str
    freed_bytes: int


@dataclass(frozen=True, slots=True)
class RemovalFailed:
    """A backup that was to go is still there, or a part of it; the next `clean` tries again."""

    kind: ClassVar[str] = "removal_failed"
    group: str
    domain: str
    backup: str
    error: str
    in_use: bool = False


@dataclass(frozen=True, slots=True)
class PendingFound:
    """A backup was started and not finished; `clean` is about to undo it."""

    kind: ClassVar[str] = "pending_found"
    group: str
    domain: str
    backup: str
    pending: str


@dataclass(frozen=True, slots=True)
class PendingUndone:
    """The domain is on its own images again, and nothing is left of the unfinished backup."""

    kind: ClassVar[str] = "pending_undone"
    group: str
    domain: str
    backup: str


@dataclass(frozen=True, slots=True)
class PendingLeft:
    """An unfinished backup is still there, and why."""

    kind: ClassVar[str] = "pending_left"
    group: str
    domain: str
    backup: str
    pending: str
    error: str
    in_use: bool = False


@dataclass(frozen=True, slots=True)
class PinChanged:
    """A backup is pinned now, so that `clean` never removes it, or is not any more."""

    kind: ClassVar[str] = "pin_changed"
    group: str
    domain: str
    backup: str
    definition: str
    pinned: bool


@dataclass(frozen=True, slots=True)
class HookFailed:
    """A command that the configuration names failed; ``group`` is None for those of the run."""

    kind: ClassVar[str] = "hook_failed"

    hook: str
    group: str | None
    error: str


class Level(StrEnum):
    """How much a finding of ``doctor`` or ``config check`` matters."""

    OK = "ok"
    INFO = "info"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that ``doctor`` or ``config`` looked at: what it is like, and what to do."""

    kind: ClassVar[str] = "finding"

    level: Level
    check: str
    subject: str
    message: str
    advice: str | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """The last word of every command."""

    kind: ClassVar[str] = "summary"
    ok: bool
    done: tuple[str, ...]
    failed: tuple[str, ...]
    exit_code: int
    error: str | None = None


Event = (
    RunStarted
    | BackupStarted
    | PhaseChanged
    | DiskProgress
    | DiskDone
    | DiskSkipped
    | Warned
    | BackupDone
    | BackupFailed
    | RestoreStarted
    | RestoreDone
    | DomainDefined
    | VerifyStarted
    | VerifyDone
    | VerifyFailed
    | ListedBackup
    | ListedDomain
    | HookFailed
    | Finding
    | CleanVerdict
    | BackupRemoved
    | RemovalFailed
    | PendingFound
    | PendingUndone
    | PendingLeft
    | PinChanged
    | Summary
)

Emit = Callable[[Event], None]

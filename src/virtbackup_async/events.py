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


@dataclass(frozen=True, slots=True)
class ListedDomain:
    """A domain that a group matches and that has no backup there, as ``list --all`` shows it."""

    kind: ClassVar[str] = "domain"
    group: str
    domain: str


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
    | ListedBackup
    | ListedDomain
    | Summary
)

Emit = Callable[[Event], None]

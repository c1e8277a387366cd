"""The events of one domain's backup, from its intent to its definition."""

from enum import StrEnum
from typing import ClassVar

from msgspec import Struct


class Phase(StrEnum):
    """The current step of a domain's backup."""

    WAITING = "waiting"
    PREPARING = "preparing"
    FREEZING = "freezing"
    COPYING = "copying"
    COMMITTING = "committing"
    FINISHING = "finishing"
    UNDOING = "undoing"


class ExpectedDisk(Struct, frozen=True):
    """How much of a disk a backup will read, as far as that is known before it begins."""

    disk: str
    read_bytes: int


class ExpectedBackup(Struct, frozen=True):
    """How much one backup will read, or ``verify`` of one backup.

    ``last`` is the domain's newest backup in the target, which read as much. Without one, the
    numbers are the sizes of the disks' images on the host. ``disks`` is empty if nothing is known.
    ``backup`` is the one that ``verify`` reads.
    """

    group: str
    domain: str
    target: str
    disks: tuple[ExpectedDisk, ...]
    last: str | None = None
    backup: str | None = None


class BackupsExpected(Struct, frozen=True):
    """How much the backups of a run will probably read; only progress bars rely on it.

    It may come more than once; each time it adds backups or replaces what was said of them.
    """

    kind: ClassVar[str] = "backups_expected"
    backups: tuple[ExpectedBackup, ...]


class DiskReading(Struct, frozen=True):
    """How a disk is about to be read: only the changes since ``base``, or all of it, and why."""

    disk: str
    base: str | None
    reason: str | None


class BackupStarted(Struct, frozen=True):
    """The intent is on disk; the domain's disks are about to be frozen and copied.

    ``method`` is ``snapshot``, ``pull``, or ``copy`` for a domain that is shut off. ``readings``
    has the disks of which the changes alone might be read.
    """

    kind: ClassVar[str] = "backup_started"
    group: str
    domain: str
    backup: str
    disks: tuple[str, ...]
    method: str = "snapshot"
    uuid: str | None = None
    readings: tuple[DiskReading, ...] = ()


class DisksHeld(Struct, frozen=True):
    """The point in time of a backup has passed: the guest is thawed, its disks are being copied.

    The fields are those of ``BackupDone``, which come much later.
    """

    kind: ClassVar[str] = "disks_held"
    domain: str
    quiesced: bool | None
    frozen_ms: int | None
    not_quiesced: str | None = None
    group: str | None = None
    backup: str | None = None
    uuid: str | None = None


class PhaseChanged(Struct, frozen=True):
    """A domain entered another phase; ``disk`` is set if only that disk did.

    ``reason`` says what a domain waits for, if that is not its turn.
    """

    kind: ClassVar[str] = "phase"
    domain: str
    phase: Phase
    disk: str | None = None
    group: str | None = None
    backup: str | None = None
    uuid: str | None = None
    reason: str | None = None


class DiskProgress(Struct, frozen=True):
    """How many bytes of an image have been copied. Neither number includes holes."""

    kind: ClassVar[str] = "disk_progress"
    domain: str
    disk: str
    done_bytes: int
    total_bytes: int
    group: str | None = None
    backup: str | None = None
    uuid: str | None = None


class DiskDone(Struct, frozen=True):
    """A disk is copied, and its domain is back on the disk's own image.

    ``base`` is the backup whose map supplied the unchanged data; without one, ``reason`` says why,
    if a base was to be expected. ``read_bytes`` is None if it equals ``data_bytes``.
    """

    kind: ClassVar[str] = "disk_done"
    domain: str
    disk: str
    file: str
    size_bytes: int
    data_bytes: int
    digest: str
    base: str | None = None
    reason: str | None = None
    read_bytes: int | None = None
    group: str | None = None
    backup: str | None = None
    uuid: str | None = None


class DiskSkipped(Struct, frozen=True):
    """A disk, or another place where a guest may store data, is not in the backup, and why."""

    kind: ClassVar[str] = "disk_skipped"
    domain: str
    disk: str
    reason: str
    group: str | None = None
    backup: str | None = None
    uuid: str | None = None


class BackupDone(Struct, frozen=True):
    """The backup is complete: ``list`` shows it from now on.

    ``frozen_ms`` is how long the guest's file systems were frozen, None if they were not.
    ``quiesced`` is None if the domain was shut off, so that there was nothing to freeze;
    ``not_quiesced`` says why a guest that should have been quiesced was not. ``read_bytes`` is less
    than ``data_bytes`` if only changes were read; ``audit_failures`` counts the disks whose dirty
    bitmap was wrong. ``missing`` are disks that should have been backed up and could not be, and
    disks of the previous backup that the configuration does not exclude. ``sequence`` and
    ``definition_hash`` are the domain's head in the target: whoever keeps them notices if the
    target becomes older.
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
    read_bytes: int
    audit_failures: int = 0
    not_quiesced: str | None = None
    missing: tuple[str, ...] = ()
    uuid: str | None = None
    sequence: int | None = None
    definition_hash: str | None = None


class BackupFailed(Struct, frozen=True):
    """This run made no backup of the domain. ``left_pending``: run ``clean``.

    ``reason`` is ``error`` without the domain's name; empty if the error does not begin with it.
    ``error_code`` is the kind of the error (docs/reference/exit-codes.md), ``advice`` what to do.
    """

    kind: ClassVar[str] = "backup_failed"
    group: str
    domain: str
    error: str
    exit_code: int
    cancelled: bool = False
    left_pending: bool = False
    reason: str = ""
    backup: str | None = None
    uuid: str | None = None
    error_code: str | None = None
    advice: str | None = None

"""One domain's backup, from its intent to its definition."""

from enum import StrEnum
from typing import ClassVar

from msgspec import Struct


class Phase(StrEnum):
    """What a domain's backup is busy with."""

    WAITING = "waiting"
    PREPARING = "preparing"
    FREEZING = "freezing"
    COPYING = "copying"
    COMMITTING = "committing"
    FINISHING = "finishing"
    UNDOING = "undoing"


class BackupStarted(Struct, frozen=True):
    """The intent is on disk; the domain's disks are about to be frozen and copied.

    ``method`` is ``snapshot``, ``pull``, or ``copy`` for a domain that is shut off.
    """

    kind: ClassVar[str] = "backup_started"
    group: str
    domain: str
    backup: str
    disks: tuple[str, ...]
    method: str = "snapshot"
    uuid: str | None = None


class PhaseChanged(Struct, frozen=True):
    """A domain's work entered another phase; ``disk`` is set where it is one disk's alone."""

    kind: ClassVar[str] = "phase"
    domain: str
    phase: Phase
    disk: str | None = None
    group: str | None = None
    backup: str | None = None
    uuid: str | None = None


class DiskProgress(Struct, frozen=True):
    """Bytes of an image that have been moved. Holes count in neither number."""

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

    ``base`` is the backup whose unchanged data was taken over; where there is none, ``reason`` says
    why not, if that was to be expected. ``read_bytes`` is None where it is as ``data_bytes``.
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
    """A disk, or what else a guest may store something in, is not in the backup, and why."""

    kind: ClassVar[str] = "disk_skipped"
    domain: str
    disk: str
    reason: str
    group: str | None = None
    backup: str | None = None
    uuid: str | None = None


class BackupDone(Struct, frozen=True):
    """The backup is complete: ``list`` shows it from now on.

    ``frozen_ms`` is how long the guest's file systems stood still, None if they were not frozen.
    ``quiesced`` is None where the domain was shut off: there was nothing to freeze;
    ``not_quiesced`` says why it could not be, where it was to be. ``read_bytes``
    is less than ``data_bytes`` where only changes were read; ``audit_failures`` counts the disks
    whose dirty bitmap was found to be wrong. ``missing`` are disks that were to be backed up
    and could not be, and those that the backup before it has, and that nobody took out of the
    configuration since.
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


class BackupFailed(Struct, frozen=True):
    """There is no backup of the domain from this run. ``left_pending``: run ``clean``.

    ``reason`` is ``error`` without the domain's name; empty where the error does not begin with it.
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

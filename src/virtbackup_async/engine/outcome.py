"""What a backup came to: its last event, or one error out of the many of a task group."""

from pathlib import Path

from virtbackup_async.engine.plan import PlannedBackup
from virtbackup_async.errors import RollbackError, VirtBackupError
from virtbackup_async.events import BackupDone
from virtbackup_async.model.backup import Definition


def most_severe(group: BaseExceptionGroup[BaseException]) -> VirtBackupError | None:
    """Return the error of a task group that must be told first: one that leaves something behind.

    None if the group holds nothing of ours: a mistake in the program, or only cancellations.
    """
    ours: list[VirtBackupError] = []
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            inner = most_severe(error)
            ours += [inner] if inner else []
        elif isinstance(error, VirtBackupError):
            ours.append(error)
    left = [error for error in ours if isinstance(error, RollbackError)]
    return next(iter(left or ours), None)


def done_event(
    planned: PlannedBackup, definition: Definition, path: Path, duration_s: float
) -> BackupDone:
    """Return what is said of a complete backup."""
    images = definition.images
    return BackupDone(
        group=planned.group.name,
        domain=definition.domain_name,
        backup=definition.name,
        definition=str(path),
        quiesced=definition.quiesced,
        frozen_ms=definition.frozen_ms,
        not_quiesced=definition.not_quiesced,
        data_bytes=sum(image.data_bytes for image in images),
        stored_bytes=sum(image.stored_bytes for image in images),
        duration_s=round(duration_s, 3),
        read_bytes=_read_bytes(definition),
        audit_failures=sum(
            record.reading is not None and record.reading.audit_failed
            for record in definition.records.values()
        ),
    )


def _read_bytes(definition: Definition) -> int:
    """Return what was read: all data of all images, but of disks whose changes were."""
    saved_bytes = sum(
        record.image.data_bytes - record.reading.read_bytes
        for record in definition.records.values()
        if record.reading is not None
    )
    return sum(image.data_bytes for image in definition.images) - saved_bytes

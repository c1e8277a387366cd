"""Copying one disk, its image and the backing files, into the package.

If possible, only the changes since an earlier backup are read (see ``incremental_copy.py``).
"""

from contextlib import AsyncExitStack

from msgspec.structs import replace

from virtbackup_async.engine.backup.incremental_copy import (
    AuditError,
    DiskJob,
    UnfitBaseError,
    checkpoint_of,
    copy_changes,
)
from virtbackup_async.engine.point_in_time.interface import PointInTimeDisks, TrackedDisk
from virtbackup_async.engine.progress import DiskMeter, data_bytes_of
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.errors import ChangedMeanwhileError
from virtbackup_async.events import DiskDone, Phase, PhaseChanged
from virtbackup_async.host.interface import ImageHost
from virtbackup_async.images.stream import DiskStream
from virtbackup_async.model.backup import DiskRecord, ImageRecord
from virtbackup_async.model.domain import BackingImage, Disk
from virtbackup_async.model.tracking import Reading
from virtbackup_async.packagers.interface import IncrementalWriter, PackageWriter


async def copy_disk(
    runtime: Runtime, job: DiskJob, package: PackageWriter, disks: PointInTimeDisks
) -> DiskRecord:
    """Put a disk into the package, and release it as soon as its own image is copied.

    No domain writes to the backing files, so the disk is not held for them; a check at the end
    confirms that they did not change.

    Raises:
        ImageError: an image cannot be read, or changed in the meantime.
        StorageError: the target is full or failed.
        RollbackError: the disk is not back on its image.
    """
    runtime.emit(PhaseChanged(job.domain, Phase.COPYING, job.disk.dev))
    tracked = disks.tracked(job.disk)
    unfit: UnfitBaseError | None = None
    record = None
    if tracked is not None and tracked.before.base and isinstance(package, IncrementalWriter):
        try:
            record = await copy_changes(runtime, job, package, tracked)
            await disks.release(job.disk)
        except UnfitBaseError as error:
            unfit = error
    if record is None:
        record = await _copy_whole(runtime, job, package, disks)
        if tracked is not None:
            record = replace(record, reading=_full_reading(job, tracked, record, unfit))
    runtime.emit(_disk_done(job.domain, job.disk.dev, record))
    return record


async def _copy_whole(
    runtime: Runtime, job: DiskJob, package: PackageWriter, disks: PointInTimeDisks
) -> DiskRecord:
    domain, disk = job.domain, job.disk
    images = (BackingImage(disk.path, disk.format), *disk.backing)
    records = []
    async with AsyncExitStack() as stack:
        before = [await runtime.host.images.signature(image.path) for image in disk.backing]
        streams = [
            await stack.enter_async_context(
                disks.open_stream(disk, image, runtime.buffers, job.limits)
            )
            for image in images
        ]
        total_bytes = sum(map(data_bytes_of, streams))
        meter = DiskMeter(runtime.emit, domain, disk.dev, total_bytes)
        for depth, (image, file, stream) in enumerate(zip(images, job.files, streams, strict=True)):
            stored = await package.add_disk(file, stream, meter.begin(stream))
            meter.end(stream)
            records.append(image_record(image, file, stream, stored))
            if depth == 0:
                await disks.release(disk)
                runtime.emit(PhaseChanged(domain, Phase.COPYING, disk.dev))
        await _check_unchanged(runtime.host.images, disk, before)
    return DiskRecord(records[0], tuple(records[1:]))


def _full_reading(
    job: DiskJob, tracked: TrackedDisk, record: DiskRecord, unfit: UnfitBaseError | None
) -> Reading:
    return Reading(
        checkpoint=tracked.checkpoint,
        base=None,
        reason=tracked.before.reason if unfit is None else unfit.message,
        full_date=job.date,
        read_bytes=record.image.data_bytes,
        audit_failed=isinstance(unfit, AuditError),
        image_id=tracked.before.image_id,
        checkpoint_of=checkpoint_of(job, tracked),
        changed=unfit.changed if unfit is not None else None,
        below=tracked.before.below,
    )


def image_record(image: BackingImage, file: str, stream: DiskStream, stored: int) -> ImageRecord:
    """Return the record of an image whose stream is in the package, as ``file``, to its end."""
    return ImageRecord(
        file=file,
        source=str(image.path),
        format=image.format,
        size_bytes=stream.size_bytes,
        data_bytes=stream.data_bytes,
        stored_bytes=stored,
        digest=stream.digest,
    )


async def _check_unchanged(images: ImageHost, disk: Disk, before: list[tuple[int, ...]]) -> None:
    for image, was in zip(disk.backing, before, strict=True):
        if await images.signature(image.path) != was:
            raise ChangedMeanwhileError(
                f"backing image {image.path} of {disk.dev} changed while it was copied",
                disk=disk.dev,
                hint="Nothing may write to an image that other images are built on.",
            )


def _disk_done(domain: str, dev: str, record: DiskRecord) -> DiskDone:
    images, reading = (record.image, *record.backing), record.reading
    return DiskDone(
        domain,
        dev,
        record.image.file,
        size_bytes=sum(image.size_bytes for image in images),
        data_bytes=sum(image.data_bytes for image in images),
        digest=record.image.digest,
        base=reading.base if reading else None,
        reason=reading.reason if reading else None,
        read_bytes=reading.read_bytes if reading else None,
    )

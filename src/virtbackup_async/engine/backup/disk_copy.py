"""Copying one disk, its image and the backing files, into the package.

If possible, only the changes since an earlier backup, its base, are read::

    dirty bitmap ----> changed         earlier map ----> all chunks of the base
                           │                                  │
                           v                                  v
                  read these, and those that the repository lost; take the others from the base
                                                              │
                       audit: read some of those anyway, and compare

A bitmap can be wrong: because of a bug, or because another program wrote to the image. So each run
reads a part of the unchanged chunks, another part each time. A single difference leads to a full
read.
"""

from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from virtbackup_async.engine.point_in_time.interface import PointInTimeDisks, TrackedDisk
from virtbackup_async.engine.progress import DiskMeter, data_bytes_of
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.errors import ChangedMeanwhileError, CorruptError, VirtBackupError
from virtbackup_async.events import DiskDone, Phase, PhaseChanged, Warned
from virtbackup_async.host.interface import ImageHost
from virtbackup_async.images.extents import bounded
from virtbackup_async.images.sources.nbd import ChangedImage
from virtbackup_async.images.stream import DiskStream, RateLimit
from virtbackup_async.model.backup import DiskRecord, ImageRecord
from virtbackup_async.model.domain import BackingImage, Disk
from virtbackup_async.model.extent import Extent
from virtbackup_async.model.tracking import Base, Reading
from virtbackup_async.packagers.interface import (
    BaseImage,
    IncrementalWriter,
    NewData,
    PackageWriter,
    Stored,
)

_MAX_RECORDED: Final = 1024
"""Extents of a disk; of more, the nearest ones are joined."""

Changed = tuple[tuple[int, int], ...]


class UnfitBaseError(VirtBackupError):
    """The base is unfit, so the disk must be read in full; the message is the reason.

    ``changed`` has the extents of the bitmap anyway, as in ``Reading``.
    """

    changed: Changed | None = None


class AuditError(UnfitBaseError):
    """Data that is unchanged by the dirty bitmap did change."""


class DiskJob(Struct, frozen=True):
    """One disk of a domain, and how its images go into the package.

    Attributes:
        domain: the domain's name.
        backup: the backup's name.
        disk: the disk.
        files: the names of its images inside the package.
        date: the date of the backup, in seconds since the epoch.
        limits: rate limits for reading.
        audit_percent: the share of the unchanged data that is read anyway.
    """

    domain: str
    backup: str
    disk: Disk
    files: tuple[str, ...]
    date: int
    limits: tuple[RateLimit, ...] = ()
    audit_percent: float = 0


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
            new = new_data(package, file)
            records.append(image_record(image, file, stream, stored, new))
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


def new_data(package: PackageWriter, file: str) -> NewData | None:
    """Return how much of an image in the package was new; None if the package has everything."""
    return package.new_data(file) if isinstance(package, IncrementalWriter) else None


def image_record(
    image: BackingImage, file: str, stream: DiskStream, stored: int, new: NewData | None
) -> ImageRecord:
    """Return the record of an image whose stream is in the package, as ``file``, to its end."""
    return ImageRecord(
        file=file,
        source=str(image.path),
        format=image.format,
        size_bytes=stream.size_bytes,
        data_bytes=stream.data_bytes,
        stored_bytes=stored,
        digest=stream.digest,
        new_bytes=new.data_bytes if new else None,
        compressed_bytes=new.compressed_bytes if new else None,
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


async def copy_changes(
    runtime: Runtime, job: DiskJob, package: IncrementalWriter, tracked: TrackedDisk
) -> DiskRecord:
    """Put a disk into the package by its changes since its base.

    Raises:
        UnfitBaseError: the base cannot be used; nothing was added.
        NbdError: the disk cannot be read.
        CorruptError: the repository is damaged, which showed only after the first changes.
        StorageError: the target is full or failed.
    """
    base = tracked.before.base
    if base is None:
        raise UnfitBaseError("no earlier backup to go on from")
    async with AsyncExitStack() as stack:
        image = await stack.enter_async_context(tracked.open_changes(runtime.buffers, job.limits))
        told = _told(tracked, base, image)
        with _with_changes(told):
            base_image = await stack.enter_async_context(
                package.open_base(base.file, base.directory)
            )
            _check_size(image, base_image)
            parts = await base_image.choose(*_changes(base, image))
            audited_bytes = await _audit(runtime, job, base, image, base_image)
        meter = DiskMeter(runtime.emit, job.domain, job.disk.dev, 0)
        async with image.open_parts(parts) as stream:
            # From here on the package has a part of the disk, so no error leads to a full read.
            progress = meter.begin(stream)
            stored = await package.add_changes(job.files[0], stream, base_image, progress)
            meter.end(stream)
    read_bytes = _ReadBytes(stream.data_bytes, audited_bytes)
    reading = _reading(job, tracked, base, read_bytes, told)
    return DiskRecord(_record(job, image, stored, package.new_data(job.files[0])), reading=reading)


class _ReadBytes(Struct, frozen=True):
    """The bytes read of the changes, and for the audit."""

    changed: int
    audited: int


def _record(job: DiskJob, image: ChangedImage, stored: Stored, new: NewData) -> ImageRecord:
    return ImageRecord(
        file=job.files[0],
        source=str(job.disk.path),
        format=job.disk.format,
        size_bytes=image.size_bytes,
        data_bytes=stored.data_bytes,
        stored_bytes=stored.stored_bytes,
        digest=stored.digest,
        new_bytes=new.data_bytes,
        compressed_bytes=new.compressed_bytes,
    )


def _reading(
    job: DiskJob, tracked: TrackedDisk, base: Base, read: _ReadBytes, changed: Changed | None
) -> Reading:
    return Reading(
        checkpoint=tracked.checkpoint,
        base=base.backup,
        reason=None,
        full_date=base.full_date,
        read_bytes=read.changed + read.audited,
        audited_bytes=read.audited,
        image_id=tracked.before.image_id,
        checkpoint_of=checkpoint_of(job, tracked),
        changed=changed,
        below=tracked.before.below,
    )


@contextmanager
def _with_changes(changed: Changed | None) -> Iterator[None]:
    """Record the extents of the bitmap in the error of an unfit base; a damaged base is unfit."""
    try:
        yield
    except UnfitBaseError as error:
        error.changed = changed
        raise
    except CorruptError as error:
        unfit = UnfitBaseError(f"the backup to go on from is damaged: {error.message}")
        unfit.changed = changed
        raise unfit from error


def _check_size(image: ChangedImage, base: BaseImage) -> None:
    if image.size_bytes != base.size_bytes:
        raise UnfitBaseError("its size changed")


def checkpoint_of(job: DiskJob, tracked: TrackedDisk) -> str | None:
    """Return the backup at whose moment the disk's checkpoint was made, or is made now."""
    base = tracked.before.base
    if base is not None and tracked.checkpoint == base.checkpoint:
        return base.checkpoint_of
    return job.backup if tracked.checkpoint is not None else None


def _told(tracked: TrackedDisk, base: Base, image: ChangedImage) -> Changed | None:
    """Return the extents to record of a bitmap that the next backup uses as well; else None."""
    if tracked.checkpoint != base.checkpoint:
        return None
    return tuple((part.start, part.length) for part in bounded(image.changed, _MAX_RECORDED))


def _changes(base: Base, image: ChangedImage) -> tuple[Sequence[Extent], Sequence[Extent]]:
    """Return the extents that can differ from the base, and the extents of the rest with data.

    The image and the base both differ from the checkpoint's backup only in their recorded changes.
    If one of them lost its end by resizing, the lost part is in neither; it shows as zeros.
    """
    if base.backup == base.checkpoint_of:
        return image.changed, ()
    return (*image.changed, *base.changed), image.data_extents or ()


async def _audit(
    runtime: Runtime, job: DiskJob, base: Base, image: ChangedImage, base_image: BaseImage
) -> int:
    """Compare a sample of the unchanged data; return the bytes read.

    Raises:
        UnfitBaseError: the sample did change.
    """
    sample = await base_image.sample(job.audit_percent, image.data_extents)
    if not sample:
        return 0
    async with image.open_parts(sample) as stream:
        audited_bytes = data_bytes_of(stream)
        if await base_image.is_as_it_was(sample, stream):
            return audited_bytes
    reason = f"the audit found changes since {base.backup} that the dirty bitmap does not tell"
    runtime.emit(Warned(f"{job.disk.dev} is read in full: {reason}", job.domain))
    raise AuditError(reason)

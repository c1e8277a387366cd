"""Copying one disk, the image and the chain below it, into the package."""

from contextlib import AsyncExitStack

from anyio import to_thread
from msgspec import Struct

from virtbackup_async.catalog import names
from virtbackup_async.engine.disk_meter import DiskMeter, data_bytes_of
from virtbackup_async.engine.environment import Environment
from virtbackup_async.engine.freeze import ChangedMeanwhileError, StillDisks, signature
from virtbackup_async.events import DiskDone, Phase, PhaseChanged
from virtbackup_async.images.rate_limit import RateLimit
from virtbackup_async.images.stream import DiskStream
from virtbackup_async.model.backup import DiskRecord, ImageRecord
from virtbackup_async.model.domain import BackingImage, Disk
from virtbackup_async.packagers.interface import PackageWriter


def image_files(backup: str, disk: Disk) -> tuple[str, ...]:
    """Return the names inside the package: of the disk's image, then of those below it."""
    top = names.disk_file(backup, disk.dev, disk.format)
    below = (
        names.disk_file(backup, f"{disk.dev}-backing{depth}", image.format)
        for depth, image in enumerate(disk.backing, start=1)
    )
    return (top, *below)


class DiskJob(Struct, frozen=True):
    """One disk of a domain, the names its images get inside the package, how fast it is read."""

    domain: str
    disk: Disk
    files: tuple[str, ...]
    limits: tuple[RateLimit, ...] = ()


async def copy_disk(
    environment: Environment, job: DiskJob, package: PackageWriter, still: StillDisks
) -> DiskRecord:
    """Put a disk into the package and release it as soon as its own image is copied.

    The images below are not written by any domain, so the disk need not stand still for them;
    that they did not change is checked all the same.

    Raises:
        ImageError: an image cannot be read, or changed while it was.
        StorageError: the target is full or failed.
        RollbackError: the disk is not back on its image.
    """
    domain, disk = job.domain, job.disk
    environment.emit(PhaseChanged(domain, Phase.COPYING, disk.dev))
    images = (BackingImage(disk.path, disk.format), *disk.backing)
    records = []
    async with AsyncExitStack() as stack:
        before = [await to_thread.run_sync(signature, image.path) for image in disk.backing]
        streams = [
            await stack.enter_async_context(
                still.open_stream(disk, image, environment.buffers, job.limits)
            )
            for image in images
        ]
        total_bytes = sum(map(data_bytes_of, streams))
        meter = DiskMeter(environment.emit, domain, disk.dev, total_bytes)
        for depth, (image, file, stream) in enumerate(zip(images, job.files, streams, strict=True)):
            stored = await package.add_disk(file, stream, meter.begin(stream))
            meter.end(stream)
            records.append(image_record(image, file, stream, stored))
            if depth == 0:
                await still.release(disk)
                environment.emit(PhaseChanged(domain, Phase.COPYING, disk.dev))
        await _check_unchanged(disk, before)
    record = DiskRecord(records[0], tuple(records[1:]))
    environment.emit(_disk_done(domain, disk.dev, record))
    return record


def image_record(image: BackingImage, file: str, stream: DiskStream, stored: int) -> ImageRecord:
    """Return what is recorded of an image that went into the package as ``file``, to its end."""
    return ImageRecord(
        file=file,
        source=str(image.path),
        format=image.format,
        size_bytes=stream.size_bytes,
        data_bytes=stream.data_bytes,
        stored_bytes=stored,
        digest=stream.digest,
    )


async def _check_unchanged(disk: Disk, before: list[tuple[int, ...]]) -> None:
    for image, was in zip(disk.backing, before, strict=True):
        if await to_thread.run_sync(signature, image.path) != was:
            raise ChangedMeanwhileError(
                f"backing image {image.path} of {disk.dev} changed while it was copied",
                hint="Nothing may write to an image that other images are built on.",
            )


def _disk_done(domain: str, dev: str, record: DiskRecord) -> DiskDone:
    images = (record.image, *record.backing)
    return DiskDone(
        domain,
        dev,
        record.image.file,
        size_bytes=sum(image.size_bytes for image in images),
        data_bytes=sum(image.data_bytes for image in images),
        digest=record.image.digest,
    )

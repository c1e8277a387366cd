"""Reading disks and state out of a package, each image compared with its record.

``restore`` writes the images, ``verify`` drops them; both check the same.
"""

import logging
import shlex
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

from virtbackup_async.engine.progress import DiskMeter
from virtbackup_async.engine.reading import hold_to_read
from virtbackup_async.engine.restore.plan import RestoredDisk, RestoredImage, RestoredState
from virtbackup_async.errors import CorruptError, DigestMismatchError, about_disk
from virtbackup_async.events import DiskDone, Emit, Warned
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.stream import DiskStream
from virtbackup_async.model.amounts import length_compared
from virtbackup_async.model.backup import Definition
from virtbackup_async.model.target_file import AnyFile
from virtbackup_async.packagers.interface import PackageReader, Progress
from virtbackup_async.packagers.registry import open_reader

_log = logging.getLogger(__name__)

Fill = Callable[[RestoredImage, DiskStream, Progress], Awaitable[None]]
"""Consumes an image's complete stream, and reports the progress."""


@asynccontextmanager
async def open_package(
    definition: Definition, directory: AnyFile, buffers: BufferPool
) -> AsyncGenerator[PackageReader]:
    """Open the package for reading; ``clean`` does not remove it until it is closed.

    Raises:
        DefinitionError: the packager is not known.
        LockHeldError: it is being removed.
        NotFoundError: it was removed.
    """
    async with (
        hold_to_read(definition, directory),
        open_reader(definition.packager, directory, definition.name, buffers) as package,
    ):
        yield package


async def read_disk(
    disk: RestoredDisk, package: PackageReader, fill: Fill, domain: str, emit: Emit
) -> DiskDone:
    """Read a disk's images, top first, and report progress and the end.

    Raises:
        CorruptError: the package is damaged, or an image does not have its recorded size.
        DigestMismatchError: the bytes do not match the recorded digest.
        StorageError: ``fill`` could not write them.
    """
    meter = DiskMeter(emit, domain, disk.dev, disk.data_bytes)
    size_bytes = 0
    digests = []
    with about_disk(disk.dev):
        for image in disk.images:
            async with package.open_disk(image.file) as stream:
                await _take(image, stream, fill, meter.begin(stream))
                meter.end(stream)
                size_bytes += stream.size_bytes
                digests.append(stream.digest)
    done = DiskDone(domain, disk.dev, disk.images[0].name, size_bytes, meter.done_bytes, digests[0])
    emit(done)
    return done


async def read_state(state: RestoredState, package: PackageReader, fill: Fill) -> int:
    """Read a file of the domain's state; too small for progress reports.

    Returns:
        The bytes of data in it.

    Raises:
        CorruptError, DigestMismatchError, StorageError: as for a disk.
    """
    async with package.open_disk(state.image.file) as stream:
        await _take(state.image, stream, fill, lambda _data_bytes: None)
        return stream.data_bytes


async def _take(
    image: RestoredImage, stream: DiskStream, fill: Fill, on_progress: Progress
) -> None:
    check_size(image, stream.size_bytes)
    await fill(image, stream, on_progress)
    check_image(image, stream.size_bytes, stream.digest)


def rebase_hints(disk: RestoredDisk, domain: str, target: Path) -> list[Warned]:
    """Return the commands that point each image of a chain at the restored one below it."""
    hints = []
    for upper, lower in pairwise(disk.images):
        if upper.record is None or lower.record is None:
            continue
        command = (
            "qemu-img", "rebase", "-u", "-f", upper.record.format, "-F", lower.record.format,
            "-b", str(target / lower.name), str(target / upper.name),
        )  # fmt: skip
        message = (
            f"{upper.name} still looks for the image below it where it was at the backup, "
            f"{lower.record.source}: to use the restored one run `{shlex.join(command)}`"
        )
        hints.append(Warned(message, domain))
    return hints


def check_image(image: RestoredImage, size_bytes: int, digest: str) -> None:
    """Compare an image that was read to its end with its record.

    Raises:
        CorruptError: it does not have its recorded size.
        DigestMismatchError: the bytes do not match the recorded digest.
    """
    check_size(image, size_bytes)
    if image.expected_digest not in {None, digest}:
        _log.info("%s: digest %s, recorded %s", image.file, digest, image.expected_digest)
        raise DigestMismatchError(f"{image.file} is damaged: its data is not what was backed up")


def check_size(image: RestoredImage, size_bytes: int) -> None:
    """Compare an image's length with its record.

    Raises:
        CorruptError: it does not have its recorded size.
    """
    if image.record is not None and image.record.size_bytes != size_bytes:
        raise CorruptError(
            f"{image.file} in the package is {length_compared(size_bytes, image.record.size_bytes)}"
        )

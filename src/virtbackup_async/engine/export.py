"""One disk of a backup as one ordinary image, whatever packager wrote it: ``export``.

::

    restore the disk's images, checked, into a directory beside the output    ``restore.py``
    rebase the chain onto the restored images                                 ``restore_define.py``
    qemu-img convert into one image without others below it
    give it its name, which is free; remove the directory

Called by the command line. Invariants: no existing file is touched; an output that has its name is
whole; what a failure or a cancellation leaves is nothing.
"""

import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from anyio import CancelScope, CapacityLimiter, to_thread
from msgspec import Struct

from virtbackup_async.engine.restore import RestoreRequest, restore_backup
from virtbackup_async.engine.restore_define import join_chain
from virtbackup_async.engine.restore_plan import RestoredDisk, RestoredImage, plan_restore
from virtbackup_async.errors import DefinitionError, StorageError
from virtbackup_async.events import DiskExported, Emit
from virtbackup_async.images import durable, qemu_img
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.model.backup import Definition
from virtbackup_async.model.domain import BackingImage

FORMATS: Final = ("qcow2", "raw")


class ExportRequest(Struct, frozen=True):
    """What to export, and where to.

    Attributes:
        definition: the backup.
        directory: where its package lies.
        dev: the disk.
        output: the image to write; its directory must exist.
        format: one of ``FORMATS``.
    """

    definition: Definition
    directory: Path
    dev: str
    output: Path
    format: str


async def export_disk(
    request: ExportRequest, *, buffers: BufferPool, cpu: CapacityLimiter, emit: Emit
) -> DiskExported:
    """Write a disk of a backup as one image; it is checked against its digest on the way.

    Raises:
        StorageError: the output exists already, or its directory is full or not writable.
        NotFoundError: the backup has no such disk.
        CorruptError: the package is damaged.
        ImageError: qemu-img cannot convert the image.
    """
    definition, output = request.definition, request.output
    if await to_thread.run_sync(output.exists):
        raise StorageError(f"{output} exists already", hint="Give another name, or move it away.")
    async with _directory_beside(output) as place:
        restored = RestoreRequest(
            definition, request.directory, place, (request.dev,), for_domain=True
        )
        done = await restore_backup(restored, buffers=buffers, cpu=cpu, emit=emit)
        whole = await _one_image(request, place)
        await to_thread.run_sync(_make_private, whole)
        await durable.rename_exclusively(whole, output)
        await durable.sync_directory(output.parent)
    return DiskExported(
        domain=definition.domain_name,
        backup=definition.name,
        disk=request.dev,
        output=str(output),
        format=request.format,
        verified=done.verified,
        data_bytes=done.data_bytes,
    )


async def _one_image(request: ExportRequest, place: Path) -> Path:
    """Return the path of the disk as one image of the wanted format."""
    (disk,) = plan_restore(request.definition, (request.dev,)).disks
    top = disk.images[0]
    image_format = _format_of(top)
    await join_chain(disk, place)
    await _check_chain(disk, place)
    if image_format == request.format and len(disk.images) == 1:
        return place / top.name
    whole = place / f"{top.name}.exported"
    await qemu_img.convert(BackingImage(place / top.name, image_format), whole, request.format)
    return whole


def _make_private(path: Path) -> None:
    path.chmod(durable.FILE_MODE)
    durable.sync_file(path)


async def _check_chain(disk: RestoredDisk, place: Path) -> None:
    """See that no file outside of the backup would be read: headers may name any of the host."""
    formats = [_format_of(image) for image in disk.images]
    for image, image_format in zip(disk.images, formats, strict=True):
        if image_format == "raw":
            continue
        header = await qemu_img.image_info(place / image.name, image_format)
        below = None if image is not disk.images[-1] else header.backing_filename
        outside = header.data_file or below
        if outside is not None:
            raise DefinitionError(
                f"{image.file} needs {outside!r:.200}, which is not in the backup",
                hint="Restore it where that file is.",
            )


def _format_of(image: RestoredImage) -> str:
    name = image.record.format if image.record else Path(image.file).suffix.removeprefix(".")
    if name not in FORMATS:
        raise DefinitionError(f"{image.file}: image format {name!r:.40} is not known")
    return name


@asynccontextmanager
async def _directory_beside(output: Path) -> AsyncGenerator[Path]:
    """Give a private directory on the output's file system, for the time of the block."""
    place = durable.temporary_path(output.parent)
    try:
        yield place
    finally:
        with CancelScope(shield=True):
            await to_thread.run_sync(shutil.rmtree, place, True)  # noqa: FBT003 -- errors ignored

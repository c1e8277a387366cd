"""The ``export`` command: one disk of a backup as one ordinary image, for any packager.

::

    package --stream--> output                          it is of the wanted format, or raw
            --restore--> images, in a directory for a while: a chain, or qcow2 that is to be raw
                         --qemu-nbd--> what a guest sees of them --> output

A second copy of the disk is needed only where QEMU must read the images.
Every image is compared with its recorded digest.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from anyio import to_thread
from msgspec import Struct

from virtbackup_async.engine.progress import DiskMeter, data_bytes_of
from virtbackup_async.engine.restore.export_target import Target, open_target
from virtbackup_async.engine.restore.plan import RestoredDisk, RestoredImage, plan_restore
from virtbackup_async.engine.restore.read_images import open_package, read_disk
from virtbackup_async.engine.restore.temporary import directory_in
from virtbackup_async.engine.restore.to_directory import (
    RestoreRequest,
    restore_files,
)
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.errors import ConfigError, DefinitionError, about_disk
from virtbackup_async.events import DiskExported, RestoreStarted
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.sources.file import open_image_stream
from virtbackup_async.images.sources.nbd import open_nbd_stream
from virtbackup_async.images.stream import DiskStream
from virtbackup_async.model.backup import Definition
from virtbackup_async.model.domain import BackingImage
from virtbackup_async.model.target_file import AnyFile
from virtbackup_async.packagers.interface import PackageReader, Progress
from virtbackup_async.qemu.qcow2 import HEAD_BYTES, file_beside
from virtbackup_async.qemu.qemu_nbd import serve_image

FORMATS: Final = ("qcow2", "raw")
# Names of images that QEMU knows, and this program does not write.
_OTHER_FORMATS: Final = frozenset({"qed", "qcow", "vdi", "vhd", "vhdx", "vmdk", "vpc"})


class ExportRequest(Struct, frozen=True):
    """What to export, and where to.

    Attributes:
        definition: the backup.
        directory: where its package lies.
        dev: the disk.
        output: the image to write, whose directory must exist; ``STDOUT`` for standard output.
        format: one of ``FORMATS``, or None to go by the output's name.
    """

    definition: Definition
    directory: AnyFile
    dev: str
    output: Path
    format: str | None = None


async def export_disk(runtime: Runtime, request: ExportRequest) -> DiskExported:
    """Write a disk of a backup as one image; it is checked against its digest on the way.

    Raises:
        StorageError: the output exists already, or its directory is full or not writable, or
            nobody reads standard output any more.
        NotFoundError: the backup has no such disk.
        CorruptError: the package is damaged.
        ImageError: QEMU cannot read the images.
        ConfigError: the output has the suffix of a format that is not written here.
    """
    plan = plan_restore(request.definition, (request.dev,))
    export = _Export(runtime, request, plan.disks[0], _wanted_format(request))
    with about_disk(request.dev):
        async with open_target(
            request.output, export.domain, export.disk.data_bytes, runtime.emit
        ) as target:
            data_bytes = await export.stream_to(target)
            if data_bytes is None:
                data_bytes = await export.convert_to(target)
    exported = DiskExported(
        domain=export.domain,
        backup=request.definition.name,
        disk=request.dev,
        output=str(request.output),
        format=export.format,
        verified=plan.is_verifiable,
        data_bytes=data_bytes,
        uuid=request.definition.domain_uuid,
    )
    runtime.emit(exported)
    return exported


class _Export(Struct, frozen=True):
    """One export. Both ways return the bytes of data in the images."""

    runtime: Runtime
    request: ExportRequest
    disk: RestoredDisk
    format: str

    @property
    def domain(self) -> str:
        return self.request.definition.domain_name

    async def stream_to(self, target: Target) -> int | None:
        """Write the disk straight from the package; return None if that is not possible."""
        request, image = self.request, self.disk.images[0]
        image_format = _format_of(image)
        if len(self.disk.images) > 1 or (image_format, self.format) == ("qcow2", "raw"):
            return None
        wrap = image_format != self.format

        async def take(_: RestoredImage, stream: DiskStream, on_progress: Progress) -> None:
            await target.take(stream, on_progress, wrap=wrap)

        definition = request.definition
        async with open_package(definition, request.directory, self.runtime.buffers) as package:
            if not await _is_streamable(package, image, image_format, wrap=wrap):
                return None
            output = str(request.output)
            devs, uuid = (request.dev,), definition.domain_uuid
            self.runtime.emit(RestoreStarted(self.domain, definition.name, output, devs, uuid))
            return (
                await read_disk(self.disk, package, take, self.domain, self.runtime.emit)
            ).data_bytes

    async def convert_to(self, target: Target) -> int:
        """Restore the images temporarily, and write the disk as a guest sees it."""
        request = self.request
        async with directory_in(
            target.work_directory, self.disk.dev, self.disk.data_bytes
        ) as place:
            restored = RestoreRequest(
                request.definition, request.directory, place, (request.dev,), for_domain=True
            )
            done = await restore_files(self.runtime, restored)
            await to_thread.run_sync(_check_heads, self.disk, place)
            async with _view(self.disk, place, self.runtime.buffers) as stream:
                meter = DiskMeter(
                    self.runtime.emit, self.domain, request.dev, data_bytes_of(stream)
                )
                await target.take(stream, meter.begin(stream), wrap=self.format == "qcow2")
            return done.data_bytes


def _wanted_format(request: ExportRequest) -> str:
    """Return the format as asked for, or by the output's suffix, or else qcow2."""
    if request.format is not None:
        return request.format
    suffix = request.output.suffix.removeprefix(".").lower()
    if suffix in _OTHER_FORMATS:
        raise ConfigError(
            f"{request.output}: an image is written as {' or '.join(FORMATS)}, not as {suffix}",
            hint="Name it so, or give --format; `qemu-img convert` makes other formats of it.",
        )
    return suffix if suffix in FORMATS else "qcow2"


async def _is_streamable(
    package: PackageReader, image: RestoredImage, image_format: str, *, wrap: bool
) -> bool:
    async with package.open_disk(image.file) as stream:
        if wrap:
            # The tables come first: they need to know where data is.
            return stream.data_extents is not None
        if image_format == "qcow2":
            async for chunk in stream.pieces():
                _check_head(image, bytes(chunk.data[:HEAD_BYTES]), is_last=True)
                break
    return True


@asynccontextmanager
async def _view(disk: RestoredDisk, place: Path, buffers: BufferPool) -> AsyncGenerator[DiskStream]:
    """Stream the disk of restored images as a guest sees it."""
    chain = [BackingImage(place / image.name, _format_of(image)) for image in disk.images]
    if [image.format for image in chain] == ["raw"]:
        async with open_image_stream(chain[0].path, buffers, follow=False) as stream:
            yield stream
        return
    async with (
        serve_image(chain, disk.dev) as address,
        open_nbd_stream(address, disk.dev, buffers) as stream,
    ):
        yield stream


def _check_heads(disk: RestoredDisk, place: Path) -> None:
    for image in disk.images:
        if _format_of(image) == "qcow2":
            with (place / image.name).open("rb") as file:
                _check_head(image, file.read(HEAD_BYTES), is_last=image is disk.images[-1])


def _check_head(image: RestoredImage, head: bytes, *, is_last: bool) -> None:
    """Make sure that no header names a file outside the backup, which QEMU would read."""
    outside = file_beside(head, may_have_backing=not is_last)
    if outside is not None:
        raise DefinitionError(
            f"{image.file} needs {outside!r:.200}, which is not in the backup",
            hint="Restore it where that file is.",
        )


def _format_of(image: RestoredImage) -> str:
    name = image.record.format if image.record else Path(image.file).suffix.removeprefix(".")
    if name == "luks":
        raise DefinitionError(
            f"{image.file} is encrypted as a whole", hint="Restore it as the image it is."
        )
    if name not in FORMATS:
        raise DefinitionError(f"{image.file}: image format {name!r:.40} is not known")
    return name

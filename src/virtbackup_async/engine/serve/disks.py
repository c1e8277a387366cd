"""Opens the disks of a backup as devices.

::

    package --open_image--> raw image ------------------------> device
                            qcow2 image, on the device below --> device     top image last
            --open_disk---> a temporary file, if the image can only be read from front to back

An image whose digest is known when it is opened is compared with its record here; its bytes are
checked as they are read. docs/how-to/serve.md has a table of what is checked when.
"""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import gettempdir
from typing import cast

from anyio import to_thread
from msgspec import Struct

from virtbackup_async.engine.restore.plan import RestoredDisk, RestoredImage
from virtbackup_async.engine.restore.read_images import check_image, check_size
from virtbackup_async.engine.restore.temporary import directory_in
from virtbackup_async.engine.serve.image_device import ImageDevice, open_qcow2
from virtbackup_async.errors import DefinitionError, ImageError, about_disk
from virtbackup_async.events import Emit, Warned
from virtbackup_async.images.extents import data_length
from virtbackup_async.images.sinks.sparse import write_sparse
from virtbackup_async.model.amounts import size
from virtbackup_async.nbd.server.device import Device
from virtbackup_async.packagers.interface import PackageReader, RandomAccess, RandomAccessReader
from virtbackup_async.packagers.plain_image import open_plain_image
from virtbackup_async.qemu.qcow2 import HEAD_BYTES, file_beside


class OpenDisk(Struct, frozen=True):
    """A disk that can be served.

    Attributes:
        dev: its name.
        device: its content, as a guest sees it.
        format: of its image in the package.
        is_checked: whether each byte is compared with the recorded digests before it is served.
        is_writable: whether an overlay takes writes.
    """

    dev: str
    device: Device
    format: str
    is_checked: bool
    is_writable: bool = False


class DiskOpener(Struct, frozen=True):
    """Opens disks until ``stack`` is closed."""

    package: PackageReader
    stack: AsyncExitStack
    emit: Emit
    domain: str

    async def open(self, disk: RestoredDisk) -> OpenDisk:
        """Open a disk, from its lowest image up.

        Raises:
            CorruptError: an image is missing, damaged, or not the recorded one.
            ImageError: only QEMU can read it.
            DefinitionError: an image needs a file that is not in the backup.
            StorageError: there is no space for an image that must be unpacked first.
        """
        device: Device | None = None
        is_checked = True
        with about_disk(disk.dev):
            for image in reversed(disk.images):
                content = await self._content(disk, image)
                is_checked = is_checked and content.digest is not None
                device = await self._device(image, content, device)
        return OpenDisk(disk.dev, cast("Device", device), _format_of(disk.images[0]), is_checked)

    async def _device(
        self, image: RestoredImage, content: RandomAccess, below: Device | None
    ) -> Device:
        if _format_of(image) != "qcow2":
            return ImageDevice(content, await content.extents())
        head = await content.read(0, min(HEAD_BYTES, content.size_bytes))
        outside = file_beside(head, may_have_backing=below is not None)
        if outside is not None:
            raise DefinitionError(
                f"{image.file} needs {outside!r:.200}, which is not in the backup",
                hint="Restore it where that file is.",
            )
        return await open_qcow2(image.file, content, below)

    async def _content(self, disk: RestoredDisk, image: RestoredImage) -> RandomAccess:
        try:
            reader = cast("RandomAccessReader", self.package)
            content = await self.stack.enter_async_context(reader.open_image(image.file))
        except ImageError:
            content = await self._unpacked(disk, image)
        check_size(image, content.size_bytes)
        if content.digest is not None:
            check_image(image, content.size_bytes, content.digest)
        return content

    async def _unpacked(self, disk: RestoredDisk, image: RestoredImage) -> RandomAccess:
        """Unpack an image that can only be read from front to back into a temporary file."""
        async with self.package.open_disk(image.file) as stream:
            extents = stream.data_extents
            bound = stream.size_bytes if extents is None else data_length(extents)
            parent = Path(gettempdir())
            self.emit(
                Warned(
                    f"{image.file} can only be read from front to back: it is unpacked into "
                    f"{parent} first, up to {size(bound)}",
                    self.domain,
                )
            )
            place = await self.stack.enter_async_context(directory_in(parent, disk.dev, bound))
            await to_thread.run_sync(lambda: place.mkdir(mode=0o700))
            await write_sparse(stream, place / "image", lambda _: None)
            digest = stream.digest
            check_image(image, stream.size_bytes, digest)
        return await self.stack.enter_async_context(open_plain_image(place / "image", digest))


@asynccontextmanager
async def open_disks(
    package: PackageReader, disks: tuple[RestoredDisk, ...], domain: str, emit: Emit
) -> AsyncGenerator[list[OpenDisk]]:
    """Open the disks of a package; raises as ``DiskOpener.open``."""
    async with AsyncExitStack() as stack:
        opener = DiskOpener(package, stack, emit, domain)
        yield [await opener.open(disk) for disk in disks]


def _format_of(image: RestoredImage) -> str:
    """Return how an image is read; one that is encrypted as a whole is served as it is."""
    name = image.record.format if image.record else Path(image.file).suffix.removeprefix(".")
    return "qcow2" if name == "qcow2" else "raw"

"""The disks of a domain that is shut off, read as image files or through ``qemu-nbd``.

Nothing is done to the domain: no overlay, no changed definition, nothing to undo, and nothing locks
its images. If somebody starts it while they are read, or writes to one of them, ``release``
notices, and the backup starts over.

With ``method: pull``, ``qemu-nbd`` exports the disks as the guest would see them, with the dirty
bitmaps that their images hold. Only a running QEMU can make a checkpoint. But the bitmap that this
backup is based on also has all changes since this backup, and more, so the next backup is based on
it as well.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from virtbackup_async.engine.point_in_time.interface import Chains, ImageFileDisks, TrackedDisk
from virtbackup_async.engine.ports import DomainPort
from virtbackup_async.errors import ChangedMeanwhileError, ImageError
from virtbackup_async.host.interface import ImageHost
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.sources.nbd import ChangedImage, open_nbd_changes, open_nbd_stream
from virtbackup_async.images.stream import DiskStream, RateLimit
from virtbackup_async.model.domain import BackingImage, Disk
from virtbackup_async.model.tracking import Tracking
from virtbackup_async.nbd import UnixAddress


class OfflineDisks(ImageFileDisks):
    """The disks of a domain that is shut off. Nothing holds them, so they are watched."""

    def __init__(self, images: ImageHost, domain: DomainPort) -> None:
        super().__init__(images)
        self._domain = domain
        self._signatures: dict[Path, tuple[int, ...]] = {}

    async def watch(self, paths: Sequence[Path]) -> None:
        """Remember the signature of each image before it is read.

        Raises:
            ImageError: an image is missing.
        """
        for path in paths:
            self._signatures[path] = await self._images.signature(path)

    async def release(self, disk: Disk) -> None:
        """Check that the image did not change.

        Raises:
            ChangedMeanwhileError: the domain was started, or the image was written to.
        """
        await self._check(disk.path)

    async def _check(self, path: Path) -> None:
        active = (await self._domain.info()).is_active
        now = await self._images.signature(path)
        if active or now != self._signatures[path]:
            raise ChangedMeanwhileError(
                f"{path} changed while it was copied",
                domain=self._domain.name,
                hint="Something started the domain or writes to its image: try again later.",
            )


@asynccontextmanager
async def open_offline(
    images: ImageHost, domain: DomainPort, disks: Sequence[Disk]
) -> AsyncGenerator[OfflineDisks]:
    """Watch the disks of a domain that is shut off."""
    offline = OfflineDisks(images, domain)
    await offline.watch([disk.path for disk in disks])
    yield offline


class OfflineNbdDisks(OfflineDisks):
    """Disks of a domain that is shut off; those that have a chain are exported while read."""

    def __init__(
        self, images: ImageHost, domain: DomainPort, chains: Chains, tracking: Tracking
    ) -> None:
        super().__init__(images, domain)
        self._chains = chains
        self._tracking = tracking

    def tracked(self, disk: Disk) -> TrackedDisk | None:
        before = self._tracking.disks.get(disk.dev)
        if before is None:
            return None
        since = self._tracking.since(disk.dev)
        return TrackedDisk(before, since, partial(self._open_changes, disk, since or ""))

    @asynccontextmanager
    async def open_stream(
        self, disk: Disk, image: BackingImage, buffers: BufferPool, limits: Sequence[RateLimit], /
    ) -> AsyncGenerator[DiskStream]:
        if disk.dev not in self._chains:
            async with super().open_stream(disk, image, buffers, limits) as stream:
                yield stream
            return
        async with (
            self._serve(disk) as address,
            open_nbd_stream(address, disk.dev, buffers, limits=limits) as stream,
        ):
            yield stream

    @asynccontextmanager
    async def _open_changes(
        self, disk: Disk, bitmap: str, buffers: BufferPool, limits: Sequence[RateLimit]
    ) -> AsyncGenerator[ChangedImage]:
        async with (
            self._serve(disk, bitmap) as address,
            open_nbd_changes(address, disk.dev, bitmap, buffers, limits=limits) as image,
        ):
            yield image

    @asynccontextmanager
    async def _serve(self, disk: Disk, bitmap: str | None = None) -> AsyncGenerator[UnixAddress]:
        async with AsyncExitStack() as stack:
            server = self._images.serve(self._chains[disk.dev], disk.dev, bitmap=bitmap)
            try:
                address = await stack.enter_async_context(server)
            except ImageError:
                await self.release(disk)  # a domain that was started is the better reason
                raise
            yield address

    async def release(self, disk: Disk) -> None:
        """Check that the image and its backing files did not change.

        Raises:
            ChangedMeanwhileError: the domain was started, or one of them was written to.
        """
        for path in self.files_of(disk):
            await self._check(path)

    def files_of(self, disk: Disk) -> list[Path]:
        """Return all files that hold data of a disk."""
        if disk.dev not in self._chains:
            return [disk.path]
        return [path for image in self._chains[disk.dev] for path in image.files]


@asynccontextmanager
async def open_offline_nbd(
    images: ImageHost,
    domain: DomainPort,
    disks: Sequence[Disk],
    chains: Chains,
    tracking: Tracking,
) -> AsyncGenerator[OfflineNbdDisks]:
    """Export the disks of a domain that is shut off; there is nothing to undo.

    Args:
        images: the machine that has the images.
        domain: the domain.
        disks: all disks to read; those without a chain are read as the files that they are.
        chains: the images of the disks to export.
        tracking: the facts about their changes.
    """
    offline = OfflineNbdDisks(images, domain, chains, tracking)
    for disk in disks:
        await offline.watch(offline.files_of(disk))
    yield offline

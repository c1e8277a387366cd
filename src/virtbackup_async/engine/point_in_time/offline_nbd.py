"""The disks of a domain that is shut off, as its guest would see them, for ``method: pull``.

``qemu-nbd`` serves them, with the dirty bitmaps that are in the images. Nothing is locked, nothing
is written: should the domain be started meanwhile, ``OfflineDisks`` notices, and the backup starts
over.

No checkpoint can be made without QEMU. But the bitmap that was gone on from knows what changed
since this backup as well, and more: the next one goes on from it again.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from msgspec import Struct

from virtbackup_async.engine.point_in_time.snapshot import OfflineDisks, TrackedDisk
from virtbackup_async.engine.ports import DomainPort
from virtbackup_async.errors import ImageError
from virtbackup_async.host.interface import ImageHost
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.rate_limit import RateLimit
from virtbackup_async.images.sources.nbd import ChangedImage, open_nbd_changes, open_nbd_stream
from virtbackup_async.images.stream import DiskStream
from virtbackup_async.model.domain import BackingImage, Disk
from virtbackup_async.model.tracking import Tracking
from virtbackup_async.nbd import UnixAddress

Chains = Mapping[str, Sequence[BackingImage]]


class OfflineNbdDisks(Struct):
    """The disks of a shut-off domain, each served while it is read; one without a chain is not."""

    at_rest: OfflineDisks
    chains: Chains
    tracking: Tracking
    quiesced: bool | None = None
    frozen_ms: int | None = None
    not_quiesced: str | None = None

    def tracked(self, disk: Disk) -> TrackedDisk | None:
        before = self.tracking.disks.get(disk.dev)
        if before is None:
            return None
        since = self.tracking.since(disk.dev)
        return TrackedDisk(before, since, partial(self._open_changes, disk, since or ""))

    @asynccontextmanager
    async def open_stream(
        self, disk: Disk, image: BackingImage, buffers: BufferPool, limits: Sequence[RateLimit], /
    ) -> AsyncGenerator[DiskStream]:
        if disk.dev not in self.chains:
            opened = self.at_rest.images.open_image(image.path, buffers, limits=limits)
            async with opened as stream:
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
            server = self.at_rest.images.serve(self.chains[disk.dev], disk.dev, bitmap=bitmap)
            try:
                address = await stack.enter_async_context(server)
            except ImageError:
                await self.release(disk)  # a domain that was started is the better reason
                raise
            yield address

    async def release(self, disk: Disk) -> None:
        """Check that the image, and those below it, stood still.

        Raises:
            ChangedMeanwhileError: the domain was started, or somebody wrote to one of them.
        """
        for image in self.chains.get(disk.dev, [BackingImage(disk.path, disk.format)]):
            for path in image.files:
                await self.at_rest.release(Disk(disk.dev, path, image.format))


@asynccontextmanager
async def open_offline_nbd(
    images: ImageHost,
    domain: DomainPort,
    chains: Chains,
    tracking: Tracking,
    kept: Sequence[Disk] = (),
) -> AsyncGenerator[OfflineNbdDisks]:
    """Serve a shut-off domain's disks; there is nothing to undo.

    Args:
        images: the machine that has the images.
        domain: which.
        chains: by dev, the disk's image and those below it, nearest first.
        tracking: what is known of their changes.
        kept: disks that are read as the files they are.
    """
    at_rest = OfflineDisks(images, domain)
    await at_rest.watch(kept)
    for dev, chain in chains.items():
        for image in chain:
            await at_rest.watch([Disk(dev, path, image.format) for path in image.files])
    yield OfflineNbdDisks(at_rest, chains, tracking)

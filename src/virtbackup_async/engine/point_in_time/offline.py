"""The disks of a domain that is shut off, read as the files that they are.

Nothing is done to the domain: no overlay, no changed definition, nothing to undo. If somebody
starts it while its images are read, or writes to one of them, ``OfflineDisks.release`` notices, and
the backup starts over.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from virtbackup_async.engine.point_in_time.interface import ImageFileDisks
from virtbackup_async.engine.ports import DomainPort
from virtbackup_async.errors import ChangedMeanwhileError
from virtbackup_async.host.interface import ImageHost
from virtbackup_async.model.domain import Disk


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

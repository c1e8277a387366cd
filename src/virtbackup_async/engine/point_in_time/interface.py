"""A domain's disks as of one point in time, until each of them is released.

::

    domain     read by    module
    ---------  ---------  ---------------  ----------------------------------------------------
    running    snapshot   snapshot.py      an overlay takes the writes; the images do not change
    running    pull       pull_job.py      QEMU exports the disks over NBD as they were
    shut off   copy       offline.py       nothing holds the images; a change is noticed
    shut off   pull       offline.py       the same, through ``qemu-nbd``

``open.py`` chooses the method, and opens the disks.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from msgspec import Struct

from virtbackup_async.engine.ports import DomainPort, HypervisorPort
from virtbackup_async.events import Emit
from virtbackup_async.host.interface import ImageHost
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.sources.nbd import ChangedImage
from virtbackup_async.images.stream import DiskStream, RateLimit
from virtbackup_async.model.domain import BackingImage, Disk
from virtbackup_async.model.tracking import Tracked

NOT_QUIESCED = "not quiesced, the backup is only crash-consistent"
MAYBE_FROZEN = "the guest's agent did not answer to the thaw: it may still be frozen"

Chains = Mapping[str, Sequence[BackingImage]]
"""By dev, a disk's image and its backing files, nearest first."""

OpenChanges = Callable[[BufferPool, Sequence[RateLimit]], AbstractAsyncContextManager[ChangedImage]]


class TrackedDisk(Struct, frozen=True):
    """A disk with its changes since a base.

    Attributes:
        before: the facts from before the point in time.
        checkpoint: the checkpoint that the next backup can be based on; None for none.
        open_changes: opens the disk to read its changes; only for a ``before`` with a base.
    """

    before: Tracked
    checkpoint: str | None
    open_changes: OpenChanges


class PointInTimeDisks(Protocol):
    """The disks of a domain as of one point in time.

    Attributes:
        quiesced: whether the guest's file systems were frozen; None for a domain that is shut off.
        frozen_ms: for how long at most, in milliseconds.
        not_quiesced: why the backup is only crash-consistent; None if it is not, or if nobody
            wanted it to be quiesced.
    """

    quiesced: bool | None
    frozen_ms: int | None
    not_quiesced: str | None

    def tracked(self, disk: Disk) -> TrackedDisk | None:
        """Return the facts about the disk's changes; None for an untracked disk."""

    def open_stream(
        self, disk: Disk, image: BackingImage, buffers: BufferPool, limits: Sequence[RateLimit], /
    ) -> AbstractAsyncContextManager[DiskStream]:
        """Read the disk's image, or one of its backing files."""

    async def release(self, disk: Disk) -> None:
        """Release a disk whose image has been read.

        Raises:
            ChangedMeanwhileError: the image changed while it was read.
            VirtBackupError: the disk cannot be released.
        """


class ImageFileDisks:
    """Disks whose image files are read. Only disks that QEMU exports can be tracked."""

    quiesced: bool | None = None
    frozen_ms: int | None = None
    not_quiesced: str | None = None

    def __init__(self, images: ImageHost) -> None:
        self._images = images

    def tracked(self, _disk: Disk) -> TrackedDisk | None:
        return None

    def open_stream(
        self, _disk: Disk, image: BackingImage, buffers: BufferPool, limits: Sequence[RateLimit], /
    ) -> AbstractAsyncContextManager[DiskStream]:
        return self._images.open_image(image.path, buffers, limits=limits)


class DisksRequest(Struct, frozen=True):
    """A domain whose disks are about to be opened.

    Attributes:
        images: the machine that has the images.
        hypervisor: where the domain is found again after a lost connection.
        domain: the domain; the caller holds its lock.
        others: devs of all other disks; the snapshot or job must leave them alone.
        quiesce: whether the guest is to be frozen.
        emit: where events go.
    """

    images: ImageHost
    hypervisor: HypervisorPort
    domain: DomainPort
    others: Sequence[str]
    quiesce: bool
    emit: Emit

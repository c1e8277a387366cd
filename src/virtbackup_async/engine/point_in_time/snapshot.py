"""Holding a domain's disks still while they are copied.

A running domain gets an overlay on all wanted disks in one atomic snapshot; its images then stand
still. A shut-off domain's images stand still by themselves, so nothing is done to it: no overlay,
no changed definition, nothing to undo. Should the domain be started meanwhile, its images change
under the copy; ``OfflineDisks.check`` notices, and the backup starts over with a snapshot.
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Protocol

import anyio
from anyio import CancelScope
from msgspec import Struct, field

from virtbackup_async.engine.ports import DomainPort, HypervisorPort
from virtbackup_async.engine.undo.overlay import (
    NoteCommitted,
    OverlaidDisk,
    reconnect,
    revert_overlay,
)
from virtbackup_async.errors import (
    ConnectionLostError,
    DomainGoneError,
    HypervisorError,
    ImageError,
    QuiesceError,
    RollbackError,
    SnapshotError,
    VirtBackupError,
)
from virtbackup_async.events import Emit, Phase, PhaseChanged, Warned
from virtbackup_async.host.interface import ImageHost
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.rate_limit import RateLimit
from virtbackup_async.images.sources.nbd import ChangedImage
from virtbackup_async.images.stream import DiskStream
from virtbackup_async.model.domain import BackingImage, Disk
from virtbackup_async.model.tracking import Tracked

NOT_QUIESCED = "not quiesced, the backup is only crash-consistent"
MAYBE_FROZEN = "the guest's agent did not answer to the thaw: it may still be frozen"
CLEAN_HINT = "Mend the cause, then run `virtbackup clean -b`."


class ChangedMeanwhileError(ImageError):
    """An image that was to stand still changed while it was copied."""


OpenChanges = Callable[[BufferPool, Sequence[RateLimit]], AbstractAsyncContextManager[ChangedImage]]


class TrackedDisk(Struct, frozen=True):
    """A disk that stands still, its changes since a base, and what the next backup goes on from.

    Attributes:
        before: what was known before it stood still.
        checkpoint: the one of this moment, that the disk is part of; None for none.
        open_changes: where ``before`` has a base, reads what changed since.
    """

    before: Tracked
    checkpoint: str | None
    open_changes: OpenChanges


class PointInTimeDisks(Protocol):
    """Disks that stand still until they are released."""

    quiesced: bool | None
    frozen_ms: int | None
    not_quiesced: str | None
    """Why the backup is only crash-consistent; None where it is not, or was not to be quiesced."""

    def tracked(self, disk: Disk) -> "TrackedDisk | None":
        """Return what is known of the disk's changes; None where they are not of interest."""

    def open_stream(
        self, disk: Disk, image: BackingImage, buffers: BufferPool, limits: Sequence[RateLimit], /
    ) -> AbstractAsyncContextManager[DiskStream]:
        """Read an image of the disk: its own, or one below it."""

    async def release(self, disk: Disk) -> None:
        """Let one disk go, after its image was copied; raises if it did not stand still."""


class SnapshotDisks(Struct):
    """The disks of a running domain, each on an overlay."""

    images: ImageHost
    hypervisor: HypervisorPort
    domain: DomainPort
    emit: Emit
    held: dict[str, OverlaidDisk]
    note: NoteCommitted
    quiesced: bool | None = False
    frozen_ms: int | None = None
    not_quiesced: str | None = None

    async def take(self, name: str, others: Sequence[str], *, quiesce: bool) -> None:
        """Take the snapshot; without freezing the guest if that is wanted and cannot be done.

        ``frozen_ms`` is the time of the whole libvirt call: the guest was frozen for less.
        """
        overlays = {dev: disk.overlay for dev, disk in self.held.items()}
        try:
            if not (quiesce and await self._take_frozen(name, overlays, others)):
                await self.domain.snapshot(name, overlays, others, quiesce=False)
        except (SnapshotError, DomainGoneError) as error:
            if (await self.domain.info()).is_active:
                raise
            raise ChangedMeanwhileError(f"{self.domain.name}: it was shut off meanwhile") from error

    async def _take_frozen(
        self, name: str, overlays: Mapping[str, Path], others: Sequence[str]
    ) -> bool:
        """Take the snapshot of the frozen guest; False if it could not be frozen."""
        began: float | None = None
        try:
            await self.domain.prepare_quiesce()
            began = anyio.current_time()
            await self.domain.snapshot(name, overlays, others, quiesce=True)
        except QuiesceError as error:
            if began is None or not await self._thaw_after(error, overlays):
                self.not_quiesced = reason_of(self.domain, error)
                self._warn(NOT_QUIESCED, error)
                return False
        except ConnectionLostError:
            await self._thaw_after_loss()
            raise
        self.frozen_ms = round((anyio.current_time() - began) * 1000)
        self.quiesced = True
        return True

    async def _thaw_after_loss(self) -> None:
        """Thaw a guest that libvirt may have frozen before it died."""
        with CancelScope(shield=True), suppress(HypervisorError):
            await reconnect(self.hypervisor)
            await self.domain.thaw()

    async def _thaw_after(self, error: QuiesceError, overlays: Mapping[str, Path]) -> bool:
        """Thaw a guest that may still be frozen; True if the snapshot was taken before the error.

        libvirt gives the same error whether the freeze failed, and nothing was made, or the thaw
        after a good snapshot. It may be no error of the agent's at all: then the snapshot without
        a freeze says so.
        """
        thawed = await self.domain.thaw()
        live = (await self.domain.sources()).live or {}
        taken = any(live.get(dev) == overlay for dev, overlay in overlays.items())
        if taken:
            self._warn("the guest may have stayed frozen for long", error)
        if thawed is None:
            self.emit(Warned(MAYBE_FROZEN, self.domain.name))
        return taken

    def tracked(self, _disk: Disk) -> None:
        """Tell nothing: changes are of interest where QEMU serves the disks."""

    def open_stream(
        self, _disk: Disk, image: BackingImage, buffers: BufferPool, limits: Sequence[RateLimit], /
    ) -> AbstractAsyncContextManager[DiskStream]:
        return self.images.open_image(image.path, buffers, limits=limits)

    async def release(self, disk: Disk) -> None:
        """Commit the disk's overlay into its image, and remove it."""
        self.emit(PhaseChanged(self.domain.name, Phase.COMMITTING, disk.dev))
        with CancelScope(shield=True):
            await revert_overlay(
                self.images, self.hypervisor, self.domain, self.held[disk.dev], self.note
            )
            # No await between: what is put back is never put back again.
            del self.held[disk.dev]

    async def release_all(self) -> None:
        """Put every disk back that is still held, whatever becomes of the others.

        Raises:
            RollbackError: for all disks that could not be put back, in one message.
        """
        failures: list[VirtBackupError] = []
        for dev, disk in list(self.held.items()):
            self.emit(PhaseChanged(self.domain.name, Phase.UNDOING, dev))
            try:
                await revert_overlay(self.images, self.hypervisor, self.domain, disk, self.note)
            except VirtBackupError as error:
                failures.append(error)
            else:
                del self.held[dev]
        if failures:
            reasons = "; ".join(error.message for error in failures)
            raise RollbackError(
                f"{self.domain.name}: still on an overlay: {reasons}", hint=CLEAN_HINT
            ) from failures[0]

    def _warn(self, message: str, error: QuiesceError) -> None:
        self.emit(Warned(f"{message}: {reason_of(self.domain, error)}", self.domain.name))


def reason_of(domain: DomainPort, error: VirtBackupError) -> str:
    """Return what an error says, without the name of the domain before it."""
    return error.message.removeprefix(f"{domain.name}: ")


@asynccontextmanager
async def open_snapshot(  # noqa: PLR0913, PLR0917 -- a snapshot is about all of these
    images: ImageHost,
    hypervisor: HypervisorPort,
    domain: DomainPort,
    disks: Mapping[str, OverlaidDisk],
    others: Sequence[str],
    emit: Emit,
    note: NoteCommitted,
    *,
    name: str,
    quiesce: bool,
) -> AsyncGenerator[SnapshotDisks]:
    """Snapshot a running domain; on the way out, put back every disk that was not released.

    Raises:
        SnapshotError: nothing was made.
        RollbackError: a disk is not back on its image; the pending file must stay.
    """
    still = SnapshotDisks(images, hypervisor, domain, emit, dict(disks), note)
    try:
        await still.take(name, others, quiesce=quiesce)
        yield still
    finally:
        with CancelScope(shield=True):
            await still.release_all()


class OfflineDisks(Struct):
    """The disks of a shut-off domain: nothing holds them, so they are watched."""

    images: ImageHost
    domain: DomainPort
    signatures: dict[Path, tuple[int, ...]] = field(default_factory=dict)
    quiesced: bool | None = None
    frozen_ms: int | None = None
    not_quiesced: str | None = None

    async def watch(self, disks: Sequence[Disk]) -> None:
        """Remember what each image looks like before it is read."""
        for disk in disks:
            self.signatures[disk.path] = await self.images.signature(disk.path)

    def tracked(self, _disk: Disk) -> None:
        """Tell nothing, as for disks on overlays."""

    def open_stream(
        self, _disk: Disk, image: BackingImage, buffers: BufferPool, limits: Sequence[RateLimit], /
    ) -> AbstractAsyncContextManager[DiskStream]:
        return self.images.open_image(image.path, buffers, limits=limits)

    async def release(self, disk: Disk) -> None:
        """Check that the image stood still.

        Raises:
            ChangedMeanwhileError: the domain was started, or somebody wrote to the image.
        """
        active = (await self.domain.info()).is_active
        now = await self.images.signature(disk.path)
        if active or now != self.signatures[disk.path]:
            raise ChangedMeanwhileError(
                f"{self.domain.name}: {disk.path} changed while it was copied",
                hint="Something started the domain or writes to its image: try again later.",
            )

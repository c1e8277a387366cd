"""The disks of a running domain, by an external snapshot.

One atomic snapshot puts an overlay on each disk, which takes the guest's writes, so the images do
not change. To release a disk, its overlay is committed into its image.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
from anyio import CancelScope

from virtbackup_async import errors
from virtbackup_async.engine.point_in_time.interface import (
    MAYBE_FROZEN,
    NOT_QUIESCED,
    DisksRequest,
    ImageFileDisks,
)
from virtbackup_async.engine.undo.overlay import NoteCommitted, OverlaidDisk, revert_overlay
from virtbackup_async.engine.undo.reconnect import reconnect
from virtbackup_async.events import Phase, PhaseChanged, Warned
from virtbackup_async.model.domain import Disk


class SnapshotDisks(ImageFileDisks):
    """The disks of a running domain, each on an overlay."""

    def __init__(
        self, request: DisksRequest, disks: Mapping[str, OverlaidDisk], note: NoteCommitted
    ) -> None:
        super().__init__(request.images)
        self.quiesced = False
        self._hypervisor = request.hypervisor
        self._domain = request.domain
        self._emit = request.emit
        self._held = dict(disks)
        self._note = note

    async def take(self, name: str, others: Sequence[str], *, quiesce: bool) -> None:
        """Take the snapshot; if the guest cannot be frozen, without that.

        ``frozen_ms`` is the time of the whole libvirt call: the guest was frozen for less.
        """
        overlays = {dev: disk.overlay for dev, disk in self._held.items()}
        try:
            if not (quiesce and await self._take_frozen(name, overlays, others)):
                await self._domain.snapshot(name, overlays, others, quiesce=False)
        except (errors.SnapshotError, errors.DomainGoneError) as error:
            if (await self._domain.info()).is_active:
                raise
            raise errors.ChangedMeanwhileError(
                "it was shut off meanwhile", domain=self._domain.name
            ) from error

    async def _take_frozen(
        self, name: str, overlays: Mapping[str, Path], others: Sequence[str]
    ) -> bool:
        """Take the snapshot of the frozen guest; False if it could not be frozen."""
        began: float | None = None
        try:
            await self._domain.prepare_quiesce()
            began = anyio.current_time()
            await self._domain.snapshot(name, overlays, others, quiesce=True)
        except errors.QuiesceError as error:
            if began is None or not await self._thaw_after(error, overlays):
                self.not_quiesced = error.within(self._domain.name)
                self._warn(NOT_QUIESCED, error)
                return False
        except errors.ConnectionLostError:
            await self._thaw_after_loss()
            raise
        self.frozen_ms = round((anyio.current_time() - began) * 1000)
        self.quiesced = True
        return True

    async def _thaw_after_loss(self) -> None:
        """Thaw a guest that libvirt might have frozen before the connection broke."""
        with CancelScope(shield=True), suppress(errors.HypervisorError):
            await reconnect(self._hypervisor)
            await self._domain.thaw()

    async def _thaw_after(self, error: errors.QuiesceError, overlays: Mapping[str, Path]) -> bool:
        """Thaw a guest that might still be frozen; True if the snapshot precedes the error.

        libvirt raises the same error if the freeze fails, with no snapshot, and if the thaw fails
        after a good snapshot. The agent might not even be the cause: then the next snapshot,
        without a freeze, fails as well, with the true reason.
        """
        thawed = await self._domain.thaw()
        live = (await self._domain.sources()).live or {}
        taken = any(live.get(dev) == overlay for dev, overlay in overlays.items())
        if taken:
            self._warn("the guest may have stayed frozen for long", error)
        if thawed is None:
            self._emit(Warned(MAYBE_FROZEN, self._domain.name))
        return taken

    async def release(self, disk: Disk) -> None:
        """Commit the disk's overlay into its image, and remove it."""
        self._emit(PhaseChanged(self._domain.name, Phase.COMMITTING, disk.dev))
        with CancelScope(shield=True):
            await self._revert(disk.dev)

    async def release_all(self) -> None:
        """Revert every disk that is not released yet, even if another one fails.

        Raises:
            RollbackError: for all disks that could not be reverted, in one message.
        """
        failures: list[errors.VirtBackupError] = []
        for dev in list(self._held):
            self._emit(PhaseChanged(self._domain.name, Phase.UNDOING, dev))
            try:
                await self._revert(dev)
            except errors.VirtBackupError as error:
                failures.append(error)
        if failures:
            reasons = "; ".join(error.message for error in failures)
            raise errors.RollbackError(
                f"still on an overlay: {reasons}",
                domain=self._domain.name,
                disk=failures[0].disk if len(failures) == 1 else None,
                hint=errors.CLEAN_HINT,
            ) from failures[0]

    async def _revert(self, dev: str) -> None:
        await revert_overlay(
            self._images, self._hypervisor, self._domain, self._held[dev], self._note
        )
        # With no await between the two, so that no disk is reverted twice.
        del self._held[dev]

    def _warn(self, message: str, error: errors.QuiesceError) -> None:
        self._emit(Warned(f"{message}: {error.within(self._domain.name)}", self._domain.name))


@asynccontextmanager
async def open_snapshot(
    request: DisksRequest, name: str, disks: Mapping[str, OverlaidDisk], note: NoteCommitted
) -> AsyncGenerator[SnapshotDisks]:
    """Snapshot a running domain; the end of the block reverts the disks that are not released.

    Args:
        request: the domain.
        name: the backup's name, for libvirt's messages.
        disks: by dev, the disks and their overlays.
        note: records that an overlay is committed.

    Raises:
        SnapshotError: nothing was created.
        RollbackError: a disk is not back on its image; the pending file must stay.
    """
    snapshot = SnapshotDisks(request, disks, note)
    try:
        await snapshot.take(name, request.others, quiesce=request.quiesce)
        yield snapshot
    finally:
        with CancelScope(shield=True):
            await snapshot.release_all()

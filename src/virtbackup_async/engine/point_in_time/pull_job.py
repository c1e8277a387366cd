"""The disks of a running domain, by a pull-mode backup job of QEMU; see ``model/pull.py``.

The guest stays on its own images, so nothing has to be committed. Data that the guest overwrites
during the copy goes to scratch images, which are deleted afterwards. ``backupBegin`` does not
freeze the guest, so this module does: freeze, begin, thaw, in one short window.

Whatever happens, the end of the block ends the job and removes its files. A foreign job is left
alone: the pending file names this backup's socket, and a job is known by its socket.

If a scratch image has no space left, QEMU cannot do the guest's write and pauses the guest. Then
the backup fails, and the guest runs again without the job.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial

import anyio
from anyio import CancelScope

from virtbackup_async import errors
from virtbackup_async.concurrency import open_background
from virtbackup_async.engine.point_in_time.interface import (
    MAYBE_FROZEN,
    NOT_QUIESCED,
    DisksRequest,
    TrackedDisk,
)
from virtbackup_async.engine.ports import ThawGuardPort
from virtbackup_async.engine.undo.pull_job import end_pull
from virtbackup_async.engine.undo.reconnect import reconnect
from virtbackup_async.events import Warned
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.sources.nbd import ChangedImage, open_nbd_changes, open_nbd_stream
from virtbackup_async.images.stream import DiskStream, RateLimit
from virtbackup_async.model.domain import BackingImage, Disk
from virtbackup_async.model.pull import PullJob, export_bitmap
from virtbackup_async.model.tracking import Tracking
from virtbackup_async.nbd import UnixAddress

WATCH_INTERVAL_S = 1
EMPTY_SCRATCH_BYTES = 1 << 20
"""More than an empty qcow2 image takes."""


class PullDisks:
    """The disks of a running domain, exported by QEMU as they were when the job began."""

    def __init__(self, request: DisksRequest, job: PullJob, tracking: Tracking) -> None:
        self.quiesced: bool | None = False
        self.frozen_ms: int | None = None
        self.not_quiesced: str | None = None
        self._images = request.images
        self._hypervisor = request.hypervisor
        self._domain = request.domain
        self._emit = request.emit
        self._job = job
        self._tracking = tracking
        self._was_paused = False

    async def begin(self, others: Sequence[str], *, quiesce: bool) -> None:
        """Begin the job; if the guest cannot be frozen, without that."""
        await self._domain.prepare_backup()
        self._was_paused = await self._domain.is_paused_on_io_error()
        try:
            if not (quiesce and await self._begin_frozen(others)):
                await self._begin(others)
        except errors.HypervisorError as error:
            await self._check_space(error)
            raise

    async def _check_space(self, error: errors.HypervisorError) -> None:
        """Find out whether libvirt refused the job for want of space for a scratch image.

        Raises:
            HypervisorError: it did; ``error`` is the refusal.
        """
        for dev, path in self._job.scratch.items():
            try:
                free_bytes = await self._images.free_bytes(path.parent)
            except errors.StorageError as reason:
                why = f"no scratch image can be made at {path} for {dev}: {reason.message}"
            else:
                if free_bytes >= EMPTY_SCRATCH_BYTES:
                    continue
                why = f"no room for the scratch image {path} of {dev}"
            raise errors.HypervisorError(
                why,
                domain=self._domain.name,
                disk=dev,
                hint="Set `scratch` to a directory with room for what the guest overwrites.",
            ) from error

    async def release(self, disk: Disk) -> None:
        """Do nothing: the job ends for all disks at once."""

    def tracked(self, disk: Disk) -> TrackedDisk | None:
        before = self._tracking.disks.get(disk.dev)
        if before is None:
            return None
        checkpoint = self._tracking.checkpoint if before.checkpoint else None
        return TrackedDisk(before, checkpoint, partial(self._open_changes, disk))

    def _open_changes(
        self, disk: Disk, buffers: BufferPool, limits: Sequence[RateLimit]
    ) -> AbstractAsyncContextManager[ChangedImage]:
        address, bitmap = UnixAddress(self._job.socket), export_bitmap(disk.dev)
        return open_nbd_changes(address, disk.dev, bitmap, buffers, limits=limits)

    def open_stream(
        self, disk: Disk, _image: BackingImage, buffers: BufferPool, limits: Sequence[RateLimit], /
    ) -> AbstractAsyncContextManager[DiskStream]:
        return open_nbd_stream(UnixAddress(self._job.socket), disk.dev, buffers, limits=limits)

    @asynccontextmanager
    async def given_up_if_paused(self) -> AsyncGenerator[None]:
        """Leave the block by an error once QEMU pauses the guest; not if it was paused before."""
        async with open_background() as tasks:
            with CancelScope() as scope:
                if not self._was_paused:
                    tasks.start_soon(self._watch, scope, name=f"watch {self._domain.name}")
                yield
        if scope.cancelled_caught:
            raise errors.HypervisorError(
                "no room for scratch: the guest had to wait for this backup",
                domain=self._domain.name,
                hint="Set `scratch` to a directory with room for what the guest overwrites.",
            )

    async def _watch(self, scope: CancelScope) -> None:
        paused = False
        while not paused:
            await anyio.sleep(WATCH_INTERVAL_S)
            # While libvirt restarts, it does not answer, and QEMU goes on serving.
            with suppress(errors.HypervisorError):
                paused = await self._domain.is_paused_on_io_error()
        scope.cancel()

    async def _begin_frozen(self, others: Sequence[str]) -> bool:
        """Begin the job in the frozen guest; False if it could not be frozen, and nothing began."""
        try:
            async with self._domain.guarded() as guard:
                await self._domain.prepare_quiesce()
                await guard.ready()
                self.frozen_ms = await self._begin_in_window(guard, others)
        except errors.QuiesceError as error:
            self._not_quiesced(error.within(self._domain.name))
            return False
        self.quiesced = self.frozen_ms is not None
        if not self.quiesced:
            self._not_quiesced("this process stood still, and the guest was thawed meanwhile")
        return True

    async def _begin_in_window(self, guard: ThawGuardPort, others: Sequence[str]) -> int | None:
        """Freeze, begin, thaw; return for how many ms the guest was frozen, None if not throughout.

        The guest is thawed whatever happens: a freeze that fails can leave a part of it frozen.
        """
        began_s = ended_s = anyio.current_time()
        in_time = False
        try:
            await guard.freeze()
            await self._begin(others)
        finally:
            with CancelScope(shield=True), suppress(errors.HypervisorError):
                # If libvirt is gone, the guard is not released, so it goes on trying.
                if await self._thaw() is None:
                    self._warn(MAYBE_FROZEN)
                ended_s = anyio.current_time()
                in_time = await guard.release()
        return round((ended_s - began_s) * 1000) if in_time else None

    def _not_quiesced(self, reason: str) -> None:
        self.not_quiesced = reason
        self._warn(f"{NOT_QUIESCED}: {reason}")

    async def _begin(self, others: Sequence[str]) -> None:
        """Begin the job; without a checkpoint, so with full reads, if libvirt refuses one."""
        tracking = self._tracking
        try:
            await self._domain.begin_backup(self._job, tracking, others)
        except errors.CallRefusedError as error:
            if tracking.checkpoint is None:
                raise
            refusal = error
        else:
            return
        # libvirt keeps the checkpoint if it fails after making it.
        await self._domain.delete_checkpoint(tracking.checkpoint, tracking.in_checkpoint)
        why = f"libvirt refused a checkpoint: {refusal.within(self._domain.name)}"
        self._tracking = tracking.in_full(why)
        await self._domain.begin_backup(self._job, self._tracking, others)
        self._warn(f"all disks are read in full, and will be the next time: {why}")

    async def _thaw(self) -> int | None:
        """Thaw the guest, even if libvirt restarts; None if no agent answers."""
        try:
            return await self._domain.thaw()
        except errors.ConnectionLostError:
            await reconnect(self._hypervisor)
            return await self._domain.thaw()

    def _warn(self, message: str) -> None:
        self._emit(Warned(message, self._domain.name))


@asynccontextmanager
async def open_pull_job(
    request: DisksRequest, job: PullJob, tracking: Tracking
) -> AsyncGenerator[PullDisks]:
    """Export a running domain's disks; the end of the block ends the job and removes its files.

    Raises:
        HypervisorError: the job could not begin; nothing was created.
        RollbackError: the job could not be ended; the pending file must stay.
    """
    disks = PullDisks(request, job, tracking)
    try:
        await disks.begin(request.others, quiesce=request.quiesce)
        async with disks.given_up_if_paused():
            yield disks
    finally:
        with CancelScope(shield=True):
            try:
                await end_pull(request.images, request.hypervisor, request.domain, job)
            except errors.VirtBackupError as error:
                raise errors.RollbackError(
                    f"the backup job is still there: {error.message}",
                    domain=request.domain.name,
                    hint=errors.CLEAN_HINT,
                ) from error

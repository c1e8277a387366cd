"""Holding a running domain's disks still by a pull-mode backup job of QEMU, see ``model/pull.py``.

The guest stays on its own images; nothing has to be merged back. What is overwritten while the
copy runs goes to scratch images, which are thrown away. ``backupBegin`` does not freeze the guest,
so that is done here: freeze, begin, thaw, in one short window.

Whatever happens, the job is ended and its files go. A job of somebody else is left alone: ours is
known by its socket, which the pending file has named before.

Where a scratch image finds no room, the guest's write that would have needed it cannot be done, and
QEMU pauses the guest. Then the backup is given up: without its job the guest goes on.
"""

import os
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import anyio
from anyio import CancelScope
from msgspec import Struct
from msgspec.structs import replace

from virtbackup_async.concurrency import open_background
from virtbackup_async.engine.backup.tracking import untracked
from virtbackup_async.engine.point_in_time.snapshot import (
    CLEAN_HINT,
    MAYBE_FROZEN,
    NOT_QUIESCED,
    TrackedDisk,
    reason_of,
)
from virtbackup_async.engine.ports import DomainPort, HypervisorPort, ImageUser, ThawGuardPort
from virtbackup_async.engine.undo.overlay import reconnect
from virtbackup_async.errors import (
    ConnectionLostError,
    DomainGoneError,
    DomainNotFoundError,
    HypervisorError,
    QuiesceError,
    RollbackError,
    StorageError,
    VirtBackupError,
)
from virtbackup_async.events import Emit, Warned
from virtbackup_async.host.interface import ImageHost
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.rate_limit import RateLimit
from virtbackup_async.images.sources.nbd import ChangedImage, open_nbd_changes, open_nbd_stream
from virtbackup_async.images.stream import DiskStream
from virtbackup_async.model import domain_xml, names
from virtbackup_async.model.domain import BackingImage, Disk, DomainInfo
from virtbackup_async.model.pull import SOCKET_MAX_BYTES, PullJob, export_bitmap, socket_name
from virtbackup_async.nbd import UnixAddress

WATCH_INTERVAL_S = 1
EMPTY_SCRATCH_BYTES = 1 << 20
"""More than a qcow2 without data takes."""


def plan_pull(info: DomainInfo, disks: Iterable[Disk], scratch: Path | None, token: str) -> PullJob:
    """Give names to all that a job will make. Blocking.

    Args:
        info: the running domain.
        disks: what is to be pulled.
        scratch: the directory for scratch images; None: beside each disk's image.
        token: what makes the names ours: eight hexadecimal digits.

    Raises:
        HypervisorError: there is no directory for the socket, or none for a scratch image.
    """
    socket = _socket_path(info, scratch, socket_name(token))
    return PullJob(socket, {disk.dev: _scratch_path(info, disk, scratch, token) for disk in disks})


def _socket_path(info: DomainInfo, scratch: Path | None, name: str) -> Path:
    # libvirt's own directories of this domain: QEMU's user may create sockets there, AppArmor and
    # SELinux let it.
    candidates = [
        *domain_xml.socket_directories(info.xml),
        *_own_directories(info),
        *([scratch] if scratch else []),
    ]
    for directory in candidates:
        path = directory / name
        if len(os.fsencode(path)) <= SOCKET_MAX_BYTES and directory.is_dir():
            return path
    raise HypervisorError(
        f"{info.name}: no directory in which QEMU could make a socket",
        hint="Set `scratch` to a directory with a short path that QEMU's user may write to.",
    )


def _own_directories(info: DomainInfo) -> Iterator[Path]:
    # The name in it is cut off where it is long; the number is of one running domain alone.
    if info.running_directory is not None:
        with suppress(OSError):
            yield from info.running_directory.glob(f"domain-{info.domain_id}-*")


def _scratch_path(info: DomainInfo, disk: Disk, scratch: Path | None, token: str) -> Path:
    if scratch is None and disk.kind != "file":
        raise HypervisorError(
            f"{info.name}: {disk.dev} is a {disk.kind} disk, beside it is no place for scratch",
            hint="Set `scratch` in the configuration to a directory for scratch images.",
        )
    name = f"{info.name}-{disk.dev}" if scratch else disk.path.name
    return names.scratch_path(scratch or disk.path.parent, name, token)


class PullDisks(Struct):
    """The disks of a running domain, served by QEMU as they were when the job began."""

    images: ImageHost
    hypervisor: HypervisorPort
    domain: DomainPort
    job: PullJob
    emit: Emit
    quiesced: bool | None = False
    frozen_ms: int | None = None
    not_quiesced: str | None = None
    was_paused: bool = False

    async def begin(self, others: Sequence[str], *, quiesce: bool) -> None:
        """Begin the job; without freezing the guest if that is wanted and cannot be done."""
        await self.domain.prepare_backup()
        self.was_paused = await self.domain.is_paused_on_io_error()
        try:
            if not (quiesce and await self._begin_frozen(others)):
                await self._begin(others)
        except HypervisorError as error:
            await self._check_room(error)
            raise

    async def _check_room(self, error: HypervisorError) -> None:
        """Say that a job was refused because a scratch image found no room, if that is so.

        Raises:
            HypervisorError: that is so.
        """
        for dev, path in self.job.scratch.items():
            try:
                free_bytes = await self.images.free_bytes(path.parent)
            except StorageError as reason:
                why = f"no scratch image can be made at {path} for {dev}: {reason.message}"
            else:
                if free_bytes >= EMPTY_SCRATCH_BYTES:
                    continue
                why = f"no room for the scratch image {path} of {dev}"
            raise HypervisorError(
                f"{self.domain.name}: {why}",
                hint="Set `scratch` to a directory with room for what the guest overwrites.",
            ) from error

    async def release(self, disk: Disk) -> None:
        """Do nothing: the job ends for all disks at once."""

    def tracked(self, disk: Disk) -> TrackedDisk | None:
        before = self.job.tracking.disks.get(disk.dev)
        if before is None:
            return None
        checkpoint = self.job.tracking.checkpoint if before.checkpoint else None
        return TrackedDisk(before, checkpoint, partial(self._open_changes, disk))

    def _open_changes(
        self, disk: Disk, buffers: BufferPool, limits: Sequence[RateLimit]
    ) -> AbstractAsyncContextManager[ChangedImage]:
        address, bitmap = UnixAddress(self.job.socket), export_bitmap(disk.dev)
        return open_nbd_changes(address, disk.dev, bitmap, buffers, limits=limits)

    def open_stream(
        self, disk: Disk, _image: BackingImage, buffers: BufferPool, limits: Sequence[RateLimit], /
    ) -> AbstractAsyncContextManager[DiskStream]:
        return open_nbd_stream(UnixAddress(self.job.socket), disk.dev, buffers, limits=limits)

    @asynccontextmanager
    async def given_up_if_paused(self) -> AsyncGenerator[None]:
        """Leave the block by an error as soon as the guest is halted, if it was not before."""
        async with open_background() as tasks:
            with CancelScope() as scope:
                if not self.was_paused:
                    tasks.start_soon(self._watch, scope, name=f"watch {self.domain.name}")
                yield
        if scope.cancelled_caught:
            raise HypervisorError(
                f"{self.domain.name}: no room for scratch: the guest had to wait for this backup",
                hint="Set `scratch` to a directory with room for what the guest overwrites.",
            )

    async def _watch(self, scope: CancelScope) -> None:
        halted = False
        while not halted:
            await anyio.sleep(WATCH_INTERVAL_S)
            # A libvirt that restarts says nothing; QEMU serves on meanwhile.
            with suppress(HypervisorError):
                halted = await self.domain.is_paused_on_io_error()
        scope.cancel()

    async def _begin_frozen(self, others: Sequence[str]) -> bool:
        """Begin the job with the guest frozen; False if it could not be frozen, nor was begun."""
        try:
            async with self.domain.guarded() as guard:
                await self.domain.prepare_quiesce()
                await guard.ready()
                self.frozen_ms = await self._begin_in_window(guard, others)
        except QuiesceError as error:
            self._not_quiesced(reason_of(self.domain, error))
            return False
        self.quiesced = self.frozen_ms is not None
        if not self.quiesced:
            self._not_quiesced("this process stood still, and the guest was thawed meanwhile")
        return True

    async def _begin_in_window(self, guard: ThawGuardPort, others: Sequence[str]) -> int | None:
        """Freeze, begin, thaw; for how many ms the guest was frozen, None if not for all of it.

        The thaw comes whatever happened, also for a guest of which only a part may be frozen.
        """
        began_s = ended_s = anyio.current_time()
        in_time = False
        try:
            await guard.freeze()
            await self._begin(others)
        finally:
            with CancelScope(shield=True), suppress(HypervisorError):
                # Where libvirt is gone, the guard is not released: it tries on.
                if await self._thaw() is None:
                    self._warn(MAYBE_FROZEN)
                ended_s = anyio.current_time()
                in_time = await guard.release()
        return round((ended_s - began_s) * 1000) if in_time else None

    def _not_quiesced(self, reason: str) -> None:
        self.not_quiesced = reason
        self._warn(f"{NOT_QUIESCED}: {reason}")

    async def _begin(self, others: Sequence[str]) -> None:
        """Begin the job; without a checkpoint, all disks in full, if libvirt refuses that."""
        tracking = self.job.tracking
        try:
            await self.domain.begin_backup(self.job, others)
        except HypervisorError as error:
            if tracking.checkpoint is None or type(error) is not HypervisorError:
                raise
            refusal = error
        else:
            return
        # It keeps the checkpoint where it fails behind it.
        await self.domain.delete_checkpoint(tracking.checkpoint, tracking.in_checkpoint)
        reason = refusal.message.removeprefix(f"{self.domain.name}: ")
        why = f"libvirt refused a checkpoint: {reason}"
        self.job = replace(self.job, tracking=untracked(tracking, why))
        await self.domain.begin_backup(self.job, others)
        self._warn(f"all disks are read in full, and will be the next time: {why}")

    async def _thaw(self) -> int | None:
        """Thaw the guest, through a restart of libvirt too; None where no agent answers."""
        try:
            return await self.domain.thaw()
        except ConnectionLostError:
            await reconnect(self.hypervisor)
            return await self.domain.thaw()

    def _warn(self, message: str) -> None:
        self.emit(Warned(message.replace(f"{self.domain.name}: ", ""), self.domain.name))


@asynccontextmanager
async def open_pull_job(  # noqa: PLR0913, PLR0917 -- a job is about all of these
    images: ImageHost,
    hypervisor: HypervisorPort,
    domain: DomainPort,
    job: PullJob,
    others: Sequence[str],
    emit: Emit,
    *,
    quiesce: bool,
) -> AsyncGenerator[PullDisks]:
    """Serve a running domain's disks; on the way out, end the job and remove what it made.

    Raises:
        HypervisorError: the job could not be begun; nothing was made.
        RollbackError: the job could not be ended; the pending file must stay.
    """
    still = PullDisks(images, hypervisor, domain, job, emit)
    try:
        await still.begin(others, quiesce=quiesce)
        async with still.given_up_if_paused():
            yield still
    finally:
        with CancelScope(shield=True):
            try:
                await end_pull(images, hypervisor, domain, job)
            except VirtBackupError as error:
                raise RollbackError(
                    f"{domain.name}: the backup job is still there: {error.message}",
                    hint=CLEAN_HINT,
                ) from error


async def end_pull(
    images: ImageHost, hypervisor: HypervisorPort, domain: ImageUser, job: PullJob
) -> None:
    """End the job if it runs and is this one; remove its scratch images and its socket.

    A guest that it has halted goes on.

    Raises:
        HypervisorError: libvirt is gone, or the job does not end.
        StorageError: a file cannot be removed.
    """
    try:
        try:
            await end_job(domain, job)
        except ConnectionLostError:
            await reconnect(hypervisor)
            await end_job(domain, job)
    except (DomainGoneError, DomainNotFoundError):
        pass  # the job went with it
    for path in (*job.scratch.values(), job.socket):
        if await images.exists(path.parent):
            await images.remove(path)


async def end_job(domain: ImageUser, job: PullJob) -> None:
    """End the job if it runs and is this one; a guest that it has halted goes on.

    Raises:
        HypervisorError: libvirt is gone, or the job does not end.
    """
    await domain.end_backup(job.socket)
    await domain.resume()

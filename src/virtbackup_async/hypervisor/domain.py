"""One domain: everything that a backup asks of it and does to it.

The object keeps the domain's identity, not libvirt's handle: a handle dies with its connection,
and an undo can have to reconnect. Source: libvirt's libvirt-domain and libvirt-domain-snapshot.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import anyio
import libvirt

from virtbackup_async.errors import CallRefusedError, HypervisorError, SnapshotError, about_disk
from virtbackup_async.hypervisor import agent
from virtbackup_async.hypervisor.block_commit import commit_and_pivot
from virtbackup_async.hypervisor.checkpoints import changed_bytes, delete, redefine
from virtbackup_async.hypervisor.connection import Connection
from virtbackup_async.hypervisor.errors import Attempt
from virtbackup_async.hypervisor.guard import ThawGuard, guarded
from virtbackup_async.hypervisor.job_xml import backup_xml, checkpoint_xml, snapshot_xml, socket_of
from virtbackup_async.hypervisor.read_domain import is_paused_on_io_error, read_info, read_sources
from virtbackup_async.model import domain_xml
from virtbackup_async.model.domain import DomainInfo, Sources
from virtbackup_async.model.pull import PullJob
from virtbackup_async.model.tracking import Tracking

END_TIMEOUT_S = 60
END_INTERVALS_S = (0.002, 0.05)
"""Between polls for a job's end: it takes moments, or seconds if QEMU has to merge a bitmap."""

_PRESERVE_SHUTDOWN_DOMAIN = 2
"""VIR_DOMAIN_BACKUP_BEGIN_PRESERVE_SHUTDOWN_DOMAIN, which an older binding does not name."""

_PRESERVES_SINCE = 11_010_000

_SNAPSHOT_FLAGS = (
    libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
)


class Domain:
    """A domain, by name for messages and by UUID for everything else."""

    def __init__(self, connection: Connection, name: str, uuid: str) -> None:
        self.name = name
        self.uuid = uuid
        self._connection = connection

    async def info(self) -> DomainInfo:
        """Return the domain's identity, state and XML as they are now."""
        handle = await self._handle()
        return await self._connection.ask(Attempt(self.name, "read"), read_info, handle)

    async def sources(self) -> Sources:
        """Return the images that the domain uses now, and those of its next start."""
        handle = await self._handle()
        return await self._connection.ask(Attempt(self.name, "read disks"), read_sources, handle)

    async def start(self) -> None:
        """Start the domain.

        Raises:
            HypervisorError: it runs already, or QEMU cannot start.
        """
        handle = await self._handle()
        await self._connection.call(Attempt(self.name, "start"), handle.create)

    async def snapshot_names(self) -> tuple[str, ...]:
        """Return the names of the domain's snapshots; virtbackup's own leave no metadata."""
        return await self._names("snapshots", "listAllSnapshots")

    async def checkpoint_names(self) -> tuple[str, ...]:
        """Return the names of the domain's checkpoints."""
        return await self._names("checkpoints", "listAllCheckpoints")

    async def _names(self, what: str, method: str) -> tuple[str, ...]:
        handle = await self._handle()
        listed = getattr(handle, method)
        found = await self._connection.ask(Attempt(self.name, f"list {what}"), listed, 0)
        return tuple(item.getName() for item in found)

    async def snapshot(
        self, name: str, overlays: Mapping[str, Path], others: Iterable[str], *, quiesce: bool
    ) -> None:
        """Put an overlay on each of these disks of the running domain, on all of them or on none.

        With ``quiesce``, libvirt freezes and thaws the guest's file systems within the call, so
        the guest does not stay frozen if this process dies.

        Raises:
            QuiesceError: with ``quiesce``, the call failed. libvirt's error is the same if the
                freeze, the snapshot or the thaw failed.
            SnapshotError: libvirt refused; nothing was created.
        """
        handle = await self._handle()
        flags = _SNAPSHOT_FLAGS
        if quiesce:
            flags |= libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_QUIESCE
        xml = snapshot_xml(name, overlays, others)
        what = Attempt(self.name, "snapshot")
        if quiesce:
            await agent.call(self._connection, handle, what, handle.snapshotCreateXML, xml, flags)
            return
        try:
            await self._connection.call_running(what, handle, handle.snapshotCreateXML, xml, flags)
        except CallRefusedError as error:
            raise error.as_kind(SnapshotError, hint=error.hint) from error

    async def prepare_backup(self) -> None:
        """Make sure that the domain has no job, which would make :meth:`begin_backup` wait.

        libvirt would wait for half a minute, with the guest frozen.

        Raises:
            HypervisorError: another backup, a migration or a similar job runs.
        """
        handle = await self._handle()
        job = await self._connection.ask(Attempt(self.name, "ask for its job"), handle.jobInfo)
        if job[0] != libvirt.VIR_DOMAIN_JOB_NONE:
            raise HypervisorError(
                "another backup job, or a migration, runs",
                domain=self.name,
                hint="Wait for it, or end it by `virsh domjobabort`.",
            )

    async def begin_backup(self, job: PullJob, tracking: Tracking, others: Iterable[str]) -> None:
        """Let QEMU export the running domain's disks as they are now, until :meth:`end_backup`.

        Raises:
            HypervisorError: libvirt refused, or another job runs; nothing was created, except that
                libvirt can have kept the checkpoint.
        """
        handle = await self._handle()
        xml, checkpoint = backup_xml(job, tracking, others), None
        name, devs = tracking.checkpoint, tracking.in_checkpoint
        if name is not None:
            left_out = [dev for dev in job.scratch if dev not in devs]
            checkpoint = checkpoint_xml(name, devs, [*left_out, *others])
        what = Attempt(self.name, "begin backup")
        flags = await self._connection.ask(what, _begin_flags, handle)
        await self._connection.call_running(
            what, handle, handle.backupBegin, xml, checkpoint, flags
        )

    async def redefine_checkpoint(
        self, name: str, date: int, devs: Sequence[str]
    ) -> frozenset[str]:
        """Return the disks whose changes since a checkpoint QEMU still has; see ``redefine``."""
        handle = await self._handle()
        what = Attempt(self.name, f"look for checkpoint {name}")
        return await self._connection.call_running(what, handle, redefine, handle, name, date, devs)

    async def changed_bytes(self, checkpoint: str) -> Mapping[str, int] | None:
        """Return how much has changed since a checkpoint; see ``changed_bytes``."""
        handle = await self._handle()
        what = Attempt(self.name, f"ask for the changes since {checkpoint}")
        return await self._connection.call_running(what, handle, changed_bytes, handle, checkpoint)

    async def delete_checkpoint(self, name: str, devs: Iterable[str]) -> bool:
        """Delete a checkpoint; False if some of its bitmaps can be left; see ``delete``."""
        handle = await self._handle()
        what = Attempt(self.name, f"remove checkpoint {name}")
        return await self._connection.call(what, delete, handle, name, devs)

    async def end_backup(self, socket: Path) -> None:
        """End the backup job with that socket, if there is one, and wait for its end.

        Raises:
            HypervisorError: it does not end.
        """
        what = Attempt(self.name, "end backup")
        deadline = anyio.current_time() + END_TIMEOUT_S
        interval_s, longest_s = END_INTERVALS_S
        handle = await self._handle()
        while await self._connection.call(what, _abort_backup, handle, socket):
            if anyio.current_time() > deadline:
                raise HypervisorError(
                    f"{what.doing}: QEMU does not end it within {END_TIMEOUT_S} s",
                    domain=what.domain,
                )
            await anyio.sleep(interval_s)
            interval_s = min(2 * interval_s, longest_s)

    async def is_paused_on_io_error(self) -> bool:
        """Return whether QEMU has paused the guest because of an I/O error of the host.

        QEMU does so if storage is full: the guest sees no error, and waits until there is space.
        """
        handle = await self._handle()
        return await self._connection.ask(
            Attempt(self.name, "read its state"), is_paused_on_io_error, handle
        )

    async def resume(self) -> None:
        """Resume a guest that QEMU paused on an I/O error; without room it is paused again."""
        if await self.is_paused_on_io_error():
            handle = await self._handle()
            await self._connection.call(Attempt(self.name, "resume"), handle.resume)

    async def prepare_quiesce(self) -> None:
        """Make sure that the guest agent answers; see ``agent``."""
        await agent.prepare(self._connection, await self._handle())

    async def freeze(self) -> None:
        """Freeze the guest's file systems until :meth:`thaw`; see ``agent``."""
        await agent.freeze(self._connection, await self._handle())

    async def is_frozen(self) -> bool:
        """Return whether the guest agent reports frozen file systems."""
        return await agent.is_frozen(self._connection, await self._handle())

    def guarded(self) -> AbstractAsyncContextManager[ThawGuard]:
        """Start a guard, which thaws the guest if this process cannot; see ``guard``."""
        return guarded(self, self._connection.uri, self._connection.credentials)

    async def thaw(self) -> int | None:
        """Ask the guest to thaw, whether it is frozen or not; see ``agent``."""
        return await agent.thaw(self._connection, await self._handle())

    async def commit(
        self, dev: str, before_pivot: Callable[[], Awaitable[None]], *, resume: bool = False
    ) -> None:
        """Bring a running domain's disk back from its overlay; see ``commit_and_pivot``."""
        handle = await self._handle()
        with about_disk(dev):
            await commit_and_pivot(self._connection, handle, dev, before_pivot, resume=resume)

    async def set_persistent_source(self, dev: str, path: Path, image_format: str) -> None:
        """Make ``path`` the disk's image, from the domain's next start on."""
        handle = await self._handle()
        what = Attempt(self.name, f"set the image of {dev}")
        with about_disk(dev):
            await self._connection.call(what, _set_source, handle, dev, path, image_format)

    async def set_saved_source(self, dev: str, path: Path, image_format: str) -> None:
        """Let the domain's saved memory resume with ``path``, which has the same content."""
        handle = await self._handle()
        what = Attempt(self.name, f"set the image of {dev} in its saved state")
        with about_disk(dev):
            await self._connection.call(what, _set_saved_source, handle, dev, path, image_format)

    async def remove_saved(self) -> None:
        """Remove the domain's managed save image: the guest loses data, as in a power cut."""
        handle = await self._handle()
        what = Attempt(self.name, "remove its saved state")
        await self._connection.call(what, handle.managedSaveRemove, 0)

    async def _handle(self) -> libvirt.virDomain:
        return await self._connection.find(self.uuid)


def _begin_flags(handle: libvirt.virDomain) -> int:
    """Return the flag that keeps a guest that powers itself off, paused, until the job ends.

    The daemon's version decides; the library here can be another one.
    """
    knows_it = handle.connect().getLibVersion() >= _PRESERVES_SINCE
    return _PRESERVE_SHUTDOWN_DOMAIN if knows_it else 0


def _abort_backup(handle: libvirt.virDomain, socket: Path) -> bool:
    """Abort the job with that socket; True while it exists."""
    try:
        if not handle.isActive() or socket_of(handle.backupGetXMLDesc(0)) != socket:
            return False
        handle.abortJob()
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_BACKUP:
            return False
        if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:
            raise
        # The job is ending, or the domain is.
    return True


def _set_source(handle: libvirt.virDomain, dev: str, path: Path, image_format: str) -> None:
    xml = handle.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    disk_xml = domain_xml.with_source(xml, dev, path, image_format)
    handle.updateDeviceFlags(disk_xml, libvirt.VIR_DOMAIN_AFFECT_CONFIG)


def _set_saved_source(handle: libvirt.virDomain, dev: str, path: Path, image_format: str) -> None:
    xml = handle.managedSaveGetXMLDesc(libvirt.VIR_DOMAIN_SAVE_IMAGE_XML_SECURE)
    changed = domain_xml.with_disk_on(xml, dev, path, image_format)
    handle.managedSaveDefineXML(changed, 0)

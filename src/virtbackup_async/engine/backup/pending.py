"""The intent of a backup: this host's note and the pending file, which name all that will be made.

Called by ``domain_backup`` before anything is touched; ``broken`` undoes a backup by them. The note
comes first and goes last, so that no pending file of this host's is ever without one: an undo
believes a pending file without a note only what libvirt and the images bear out.
"""

import secrets
from pathlib import Path

import anyio
from anyio import CancelScope, to_thread
from msgspec import Struct
from msgspec.structs import replace

from virtbackup_async import __version__
from virtbackup_async.catalog.host_notes import Note
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.engine.backup.disk_copy import image_files
from virtbackup_async.engine.backup.selection import Selection
from virtbackup_async.engine.plan import PlannedBackup
from virtbackup_async.engine.point_in_time.pull_job import plan_pull
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.model import names
from virtbackup_async.model.backup import Pending, PendingDisk
from virtbackup_async.model.domain import Disk, DomainInfo
from virtbackup_async.model.pull import PullJob

TOKEN_BYTES = 4
NAME_RETRY_S = 0.2


class _Names(Struct, frozen=True):
    """What makes the names of overlays or scratch images; a ``job`` only where QEMU serves."""

    token: str
    job: PullJob | None
    is_active: bool

    def is_tracked(self, disk: Disk) -> bool:
        return self.job is not None and disk.dev in self.job.tracking.in_checkpoint

    def of(self, disk: Disk, files: tuple[str, ...]) -> PendingDisk:
        """Return what is about to be made for one disk."""
        file, *backing = files
        overlay = scratch = None
        if self.job is not None:
            scratch = str(self.job.scratch[disk.dev])
        elif self.is_active:
            overlay = str(names.overlay_path(disk.path, self.token))
        return PendingDisk(
            str(disk.path),
            disk.format,
            overlay,
            file,
            tuple(backing),
            scratch=scratch,
            tracked=self.is_tracked(disk),
        )


class Intent(Struct, frozen=True):
    """What a backup is about to make, and where it says so.

    Attributes:
        pending: what it makes.
        job: the pull job; None for other methods.
        path: of the pending file.
        note: of this host.
    """

    pending: Pending
    job: PullJob | None
    path: Path
    note: Note


async def write_intent(
    runtime: Runtime,
    catalog: Catalog,
    planned: PlannedBackup,
    info: DomainInfo,
    selection: Selection,
) -> Intent:
    """Make the note of this host and the pending file durable.

    Raises:
        HypervisorError: a backup job has no place for its socket or for a scratch image.
        StorageError: the target or this host's own directory is not there, not writable or full.
    """
    token = secrets.token_hex(TOKEN_BYTES)
    job = None
    if selection.pull and info.is_active:
        scratch = planned.group.scratch
        job = await to_thread.run_sync(plan_pull, info, selection.disks, scratch, token)
        job = replace(job, tracking=selection.tracking)
    made = _Names(token, job, info.is_active)
    while True:
        pending = _intent(runtime, planned, info, selection, made)
        note = await runtime.host.note(pending, catalog.pending_path(pending))
        try:
            path = await catalog.create_pending(pending)
        except BaseException as error:
            with CancelScope(shield=True):
                await runtime.host.notes.remove(note.path)
            if not isinstance(error, FileExistsError):
                raise
        else:
            return Intent(pending, job, path, note)
        # A name holds seconds; two backups of a domain in one second need two of them.
        await anyio.sleep(NAME_RETRY_S)


async def forget_intent(runtime: Runtime, catalog: Catalog, intent: Intent) -> None:
    """Remove the pending file and then the note: nothing is left to be undone."""
    await catalog.remove_pending(intent.path)
    await runtime.host.notes.remove(intent.note.path)


def _intent(
    runtime: Runtime,
    planned: PlannedBackup,
    info: DomainInfo,
    selection: Selection,
    made: _Names,
) -> Pending:
    now = runtime.now()
    name = names.backup_name(info.name, info.domain_id, now)
    return Pending(
        name=name,
        domain_id=info.domain_id,
        domain_name=info.name,
        domain_xml=info.xml,
        disks={disk.dev: made.of(disk, image_files(name, disk)) for disk in selection.disks},
        version=__version__,
        date=int(now.timestamp()),
        packager=planned.group.packager,
        domain_uuid=info.uuid,
        quiesce=planned.quiesce,
        state_files=tuple(file.name_in(name) for file in selection.state.files),
        socket=str(made.job.socket) if made.job else None,
        checkpoint=made.job.tracking.checkpoint if made.job else None,
    )

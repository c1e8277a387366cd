"""Starting a backup: the host note and the pending file name everything that it will create.

They are on disk before anything is touched, and an undo relies on them. The note is written first
and removed last, so that no pending file of this host is ever without one. If a pending file has no
note, an undo relies only on those of its facts that libvirt and the images confirm.
"""

import secrets

import anyio
from anyio import CancelScope
from msgspec import Struct

from virtbackup_async.catalog.host_notes import Note
from virtbackup_async.engine.backup.inspection import Inspection
from virtbackup_async.engine.plan import PlannedBackup
from virtbackup_async.engine.point_in_time.pull_paths import plan_pull
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.host.interface import ImageHost
from virtbackup_async.model import names
from virtbackup_async.model.backup import Pending, PendingDisk
from virtbackup_async.model.domain import Disk
from virtbackup_async.model.pull import PullJob
from virtbackup_async.model.target_file import TargetFile
from virtbackup_async.version import __version__

TOKEN_BYTES = 4
NAME_RETRY_S = 0.2


class StartedBackup(Struct, frozen=True):
    """A backup whose pending file and host note are on disk.

    Attributes:
        pending: the names of everything that it creates.
        path: the pending file.
        directory: of the package and the definition.
        note: the host note.
    """

    pending: Pending
    path: TargetFile
    directory: TargetFile
    note: Note


class _Names(Struct, frozen=True):
    """The source of all names; ``job`` is None without a pull job."""

    token: str
    job: PullJob | None
    inspection: Inspection

    @property
    def checkpoint(self) -> str | None:
        return self.inspection.tracking.checkpoint if self.job is not None else None

    def disk(self, disk: Disk, files: tuple[str, ...]) -> PendingDisk:
        """Return the names for one disk, whose images become ``files`` in the package."""
        file, *backing = files
        overlay = scratch = None
        if self.job is not None:
            scratch = str(self.job.scratch[disk.dev])
        elif self.inspection.info.is_active:
            overlay = str(names.overlay_path(disk.path, self.token))
        in_checkpoint = self.inspection.tracking.in_checkpoint
        return PendingDisk(
            str(disk.path),
            disk.format,
            overlay,
            file,
            tuple(backing),
            scratch=scratch,
            tracked=self.job is not None and disk.dev in in_checkpoint,
        )


async def write_pending(
    runtime: Runtime, planned: PlannedBackup, inspection: Inspection
) -> StartedBackup:
    """Write the host note and the pending file; both are durable.

    Raises:
        HypervisorError: a pull job has no place for its socket or for a scratch image.
        StorageError: the target or the state directory is missing, not writable or full.
    """
    catalog = inspection.catalog
    made = await _choose_names(runtime.host.images, planned, inspection)
    while True:
        pending = _pending(runtime, planned, made)
        note = await runtime.host.note(pending, catalog)
        try:
            path = await catalog.create_pending(pending)
        except BaseException as error:
            with CancelScope(shield=True):
                await runtime.host.notes.remove(note.path)
            if not isinstance(error, FileExistsError):
                raise
        else:
            return StartedBackup(pending, path, catalog.definition_of(path).parent, note)
        # A name contains the second; two backups of a domain need two different seconds.
        await anyio.sleep(NAME_RETRY_S)


async def remove_pending(runtime: Runtime, inspection: Inspection, started: StartedBackup) -> None:
    """Remove the pending file and then the note, when nothing is left to undo."""
    await inspection.catalog.remove_pending(started.path)
    await runtime.host.notes.remove(started.note.path)


async def _choose_names(
    images: ImageHost, planned: PlannedBackup, inspection: Inspection
) -> _Names:
    info, selection = inspection.info, inspection.selection
    token = secrets.token_hex(TOKEN_BYTES)
    job = None
    if selection.pull and info.is_active:
        job = await plan_pull(images, info, selection.disks, planned.group.scratch, token)
    return _Names(token, job, inspection)


def _pending(runtime: Runtime, planned: PlannedBackup, made: _Names) -> Pending:
    now = runtime.now()
    info, selection = made.inspection.info, made.inspection.selection
    name = names.backup_name(info.name, info.domain_id, now)
    return Pending(
        name=name,
        domain_id=info.domain_id,
        domain_name=info.name,
        domain_xml=info.xml,
        disks={disk.dev: made.disk(disk, _image_files(name, disk)) for disk in selection.disks},
        version=__version__,
        date=int(now.timestamp()),
        packager=planned.group.packager,
        domain_uuid=info.uuid,
        quiesce=planned.quiesce,
        state_files=tuple(file.name_in(name) for file in selection.state.files),
        socket=str(made.job.socket) if made.job else None,
        checkpoint=made.checkpoint,
    )


def _image_files(backup: str, disk: Disk) -> tuple[str, ...]:
    """Return the names inside the package: of the disk's image, then of its backing files."""
    top = names.disk_file(backup, disk.dev, disk.format)
    below = (
        names.disk_file(backup, f"{disk.dev}-backing{depth}", image.format)
        for depth, image in enumerate(disk.backing, start=1)
    )
    return (top, *below)

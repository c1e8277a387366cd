"""Undoing a backup whose process died: from its pending file alone.

The pending file was on disk before anything was made, so it names all that there can be: overlays,
the package, the definition. What is really there is looked up now. A backup that got as far as its
definition is whole: only its domain and its pending file are put in order.

``clean`` calls it for every pending backup; ``backup`` for those of a domain that is about to be
backed up. The caller holds the domain's lock, so the pending file has no living owner.
"""

from contextlib import suppress
from functools import partial
from pathlib import Path

from anyio import to_thread

from virtbackup_async.catalog.definition_file import is_ours
from virtbackup_async.catalog.package_files import packed_files
from virtbackup_async.catalog.scanning import FoundPending, definition_path
from virtbackup_async.catalog.store import Catalog, may_be_there
from virtbackup_async.engine.checkpoints import drop_checkpoint
from virtbackup_async.engine.foreign_owner import refuse_while_virt_backup_runs
from virtbackup_async.engine.ports import DomainPort, HypervisorPort, ImageUser
from virtbackup_async.engine.pull import end_pull
from virtbackup_async.engine.put_back import OverlaidDisk, put_back
from virtbackup_async.engine.whereabouts import uuid_of
from virtbackup_async.errors import HypervisorError, RollbackError, VirtBackupError
from virtbackup_async.events import Emit, Warned
from virtbackup_async.model.backup import Pending
from virtbackup_async.packagers.registry import remove_package


async def undo_pending(
    hypervisor: HypervisorPort, domain: ImageUser, catalog: Catalog, found: FoundPending
) -> None:
    """Put the domain's disks back, remove what is half-made, and the pending file last.

    Raises:
        RollbackError: something could not be undone; the pending file stays. Safe to run again.
        LockHeldError: a virt-backup may be working on it right now.
    """
    pending = found.pending
    if not is_ours(pending.version):
        await refuse_while_virt_backup_runs(pending.name)
    if pending.quiesce:
        # libvirt thaws in the call that freezes, and may have died in it; a pull job is begun in
        # a guest that we froze, and may have died with.
        with suppress(HypervisorError):
            await domain.thaw()
    failures = await _put_back_all(hypervisor, domain, catalog, found)
    failures += await _end_job(hypervisor, domain, found)
    if failures:
        raise RollbackError(
            f"{domain.name}: backup {pending.name} cannot be undone: {'; '.join(failures)}",
            hint="Mend the cause, then run `virtbackup clean -b` again.",
        )
    definition = definition_path(found.path)
    if not (is_ours(pending.version) and await to_thread.run_sync(may_be_there, definition)):
        # virt-backup writes its definition first: beside its pending file it proves nothing.
        await catalog.remove_definition(definition)
        await remove_package(
            pending.packager, found.path.parent, pending.name, packed_files(pending)
        )
    await catalog.remove_pending(found.path)


def overlaid_disks(pending: Pending) -> list[OverlaidDisk]:
    """Return the disks that were put, or about to be put, on an overlay."""
    return [
        OverlaidDisk(dev, Path(disk.src), disk.type, Path(disk.snapshot), disk.committed)
        for dev, disk in pending.disks.items()
        if disk.snapshot is not None
    ]


async def _put_back_all(
    hypervisor: HypervisorPort, domain: ImageUser, catalog: Catalog, found: FoundPending
) -> list[str]:
    failures = []
    note = partial(catalog.note_committed, found.path)
    for disk in overlaid_disks(found.pending):
        try:
            await put_back(hypervisor, domain, disk, note)
        except VirtBackupError as error:
            failures.append(error.message)
    return failures


async def _end_job(hypervisor: HypervisorPort, domain: ImageUser, found: FoundPending) -> list[str]:
    if found.pending.pull_job is None:
        return []
    try:
        await end_pull(hypervisor, domain, found.pending.pull_job)
        await drop_checkpoint(hypervisor, domain, found.pending, found.path)
    except VirtBackupError as error:
        return [error.message]
    return []


async def undo_dead_backups(
    hypervisor: HypervisorPort, domain: DomainPort, catalog: Catalog, emit: Emit
) -> None:
    """Undo every pending backup of a domain, whose lock the caller holds.

    Raises:
        RollbackError: one could not be undone; the others were tried all the same.
    """
    failures = []
    for found in (await catalog.scan_domain(domain.name)).pending:
        if uuid_of(found.pending) not in (None, domain.uuid):
            # Another domain had this name then; its disks are not this one's.
            continue
        emit(Warned(f"undoing backup {found.pending.name}, which was killed", domain.name))
        try:
            await undo_pending(hypervisor, domain, catalog, found)
        except RollbackError as error:
            failures.append(error)
    if failures:
        raise failures[0]

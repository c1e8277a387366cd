"""Undoing killed backups for ``clean``, under the domain's lock.

``undo/pending.py`` says what is undone and in which order, ``undo/find_domain.py`` which domain it
was.
"""

from contextlib import AsyncExitStack

from anyio import to_thread
from msgspec import Struct

from virtbackup_async.catalog.host_notes import Note
from virtbackup_async.catalog.scanning import FoundPending
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.engine.clean.request import Cleaning
from virtbackup_async.engine.clean.stray_files import TEMPORARY_MAX_AGE_S
from virtbackup_async.engine.host_state import Host
from virtbackup_async.engine.locks import LockWait, hold_domain
from virtbackup_async.engine.outcome import known_error
from virtbackup_async.engine.plan import select_groups
from virtbackup_async.engine.ports import HypervisorPort, ImageUser
from virtbackup_async.engine.undo.evidence import DeadBackup, dead_backup
from virtbackup_async.engine.undo.find_domain import GoneDomain, find_domain, lock_name
from virtbackup_async.engine.undo.pending import Undo, read_notes
from virtbackup_async.errors import DefinitionError, LockHeldError, StorageError
from virtbackup_async.events import Emit, PendingFound, PendingLeft, PendingUndone, Warned
from virtbackup_async.files.refusals import look_at
from virtbackup_async.model.target_file import TargetFile


async def report_and_undo(
    cleaning: Cleaning, catalog: Catalog, group: str, dead: DeadBackup
) -> None:
    """Report a pending backup, and undo it unless this is a dry run."""
    pending = dead.pending
    cleaning.emit(PendingFound(group, pending.domain_name, pending.name, str(dead.path)))
    if not cleaning.request.dry_run:
        runtime = cleaning.runtime
        undoing = Undoing(runtime.hypervisor, catalog, runtime.host, cleaning.emit)
        await undo_pending(undoing, group, dead, cleaning.lock_wait(pending.domain_name))


async def undo_orphans(cleaning: Cleaning) -> None:
    """Undo the backups that this host noted and whose pending file is gone or damaged.

    Even if somebody removed the pending file, or the target is offline, the domain must not stay on
    its overlay.
    """
    if not cleaning.request.dry_run and cleaning.request.broken:
        await _remove_stray_files(cleaning)
    config = cleaning.runtime.config
    named = select_groups(config, cleaning.request.group_names)
    for note in cleaning.notes.notes:
        domain = note.pending.domain_name
        asked = named or config.groups.values()
        group = next((group.name for group in asked if group.includes(domain)), None)
        if (group is None and named) or not await _is_orphan(note):
            continue
        # The note names the pending file, and so the target.
        catalog = cleaning.runtime.host.catalog(note.target)
        dead = DeadBackup(note.pending, TargetFile.of(note.pending_path), note)
        await report_and_undo(cleaning, catalog, group or "", dead)


async def _remove_stray_files(cleaning: Cleaning) -> None:
    try:
        before_s = cleaning.now.timestamp() - TEMPORARY_MAX_AGE_S
        await cleaning.runtime.host.notes.remove_stray_files(before_s)
    except StorageError as error:
        cleaning.emit(Warned(str(error)))


async def _is_orphan(note: Note) -> bool:
    """Return whether a note still exists and its pending file cannot be read."""
    try:
        return (
            await to_thread.run_sync(look_at, note.path) is not None
            and await Catalog(note.target).read_pending(TargetFile.of(note.pending_path)) is None
        )
    except (DefinitionError, StorageError):
        return True


class Undoing(Struct, frozen=True):
    """The parts that an undo of a target's pending backups needs."""

    hypervisor: HypervisorPort
    catalog: Catalog
    host: Host
    emit: Emit


async def undo_pending(undoing: Undoing, group: str, dead: DeadBackup, lock_wait: LockWait) -> None:
    """Undo a pending backup and report the result; raises no ``VirtBackupError``."""
    pending = dead.pending

    def left(error: str, *, in_use: bool = False) -> None:
        path = str(dead.path)
        event = PendingLeft(group, pending.domain_name, pending.name, path, error, in_use)
        undoing.emit(event)

    try:
        undone = await _undo(undoing, dead, lock_wait)
    except LockHeldError as error:
        left(f"is being worked on: {error.message}", in_use=True)
    except Exception as error:  # noqa: BLE001 -- no error must stop the other domains
        left(str(known_error(pending.domain_name, error)))
    else:
        if undone:
            undoing.emit(PendingUndone(group, pending.domain_name, pending.name))


async def _undo(undoing: Undoing, dead: DeadBackup, lock_wait: LockWait) -> bool:
    """Undo it under the lock; return False if it had ended before."""
    name, locked = dead.pending.domain_name, lock_name(dead.pending)
    async with AsyncExitStack() as locks:
        images = undoing.host.images
        lock = hold_domain(images, name, locked, "clean", lock_wait)
        is_alone = await locks.enter_async_context(lock)
        again = await _read_again(undoing, dead)
        if again is None:
            return False
        domain, uuid = await _domain_of(undoing.hypervisor, again)
        if uuid not in (None, locked):
            lock = hold_domain(images, domain.name, uuid, "clean", lock_wait)
            is_alone &= await locks.enter_async_context(lock)
        undo = Undo(undoing.hypervisor, domain, undoing.catalog, undoing.host, is_alone)
        await undo.of(again)
    return True


async def _read_again(undoing: Undoing, dead: DeadBackup) -> DeadBackup | None:
    """Read note and pending file again under the lock; None if the backup has ended."""
    if dead.note is not None:
        note = await undoing.host.notes.read(dead.note.path)
        return None if note is None else DeadBackup(note.pending, dead.path, note)
    pending = await undoing.catalog.read_pending(dead.path)
    if pending is None:
        return None
    # It may have been begun after the notes were read.
    notes = await read_notes(undoing.host, lambda _event: None)
    return await dead_backup(notes, FoundPending(pending, dead.path))


async def _domain_of(hypervisor: HypervisorPort, dead: DeadBackup) -> tuple[ImageUser, str | None]:
    """Return the domain and its UUID; libvirt is asked only if the domain may have been changed."""
    pending = dead.pending
    if not dead.overlaid and pending.pull_job is None:
        return GoneDomain(pending.domain_name), None
    domain = await find_domain(hypervisor, pending, is_noted=dead.note is not None)
    return domain, None if isinstance(domain, GoneDomain) else domain.uuid

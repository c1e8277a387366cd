"""Undoing a backup whose process died.

The note and the pending file were on disk before anything was created, so they name everything
that can exist: overlays, the package, the definition. This module finds out which of it does exist;
``evidence`` decides which of it may be touched without a note. A backup that has its definition is
complete: only its domain is reverted, and its pending file removed.

``clean`` undoes every pending backup, and ``backup`` those of the domain that it is about to back
up. The caller holds the domain's lock, so no living process owns the pending file.
"""

import logging
from contextlib import suppress
from functools import partial
from stat import S_ISDIR

from anyio import to_thread
from msgspec import Struct

from virtbackup_async import errors
from virtbackup_async.catalog.definition_file import is_ours
from virtbackup_async.catalog.host_notes import Notes
from virtbackup_async.catalog.store import Catalog, may_be_there
from virtbackup_async.engine.host_state import Host
from virtbackup_async.engine.ports import DomainPort, HypervisorPort, ImageUser
from virtbackup_async.engine.undo.evidence import (
    DeadBackup,
    borne_out,
    check_nothing_left,
    dead_backup,
    joined,
    refuse_while_virt_backup_runs,
)
from virtbackup_async.engine.undo.overlay import OverlaidDisk, revert_overlay
from virtbackup_async.engine.undo.pull_job import drop_checkpoint, end_job, end_pull
from virtbackup_async.events import Emit, Warned
from virtbackup_async.files.refusals import look_at
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.model.guest import Guest, uuid_of
from virtbackup_async.model.packager import Location, packed_files
from virtbackup_async.model.target_file import TargetFile
from virtbackup_async.packagers.registry import remove_package

_AGAIN = "run `virtbackup clean -b` again"

_log = logging.getLogger(__name__)


class Undo(Struct, frozen=True):
    """The undo of a domain's dead backups.

    Attributes:
        is_alone: whether it is known that no other user of the host works on the domain; this
            process cannot read another user's notes.
    """

    hypervisor: HypervisorPort
    domain: ImageUser
    catalog: Catalog
    host: Host
    is_alone: bool

    async def of(self, dead: DeadBackup) -> None:
        """Revert the domain's disks and remove the package; pending file and note go last.

        It is safe to run this again.

        Raises:
            RollbackError: something could not be undone; the pending file stays.
            LockHeldError: a virt-backup, or another user, might be working on it right now.
        """
        pending = dead.pending
        if dead.note is None and not self.is_alone:
            raise errors.LockHeldError(
                f"another user works on it, and {pending.name} may be theirs",
                domain=self.domain.name,
                hint="Wait for the other user's command to end, then run this one again.",
            )
        if not is_ours(pending.version):
            await refuse_while_virt_backup_runs(pending.name)
        failures = await self._revert_all(dead)
        failures += await self._end_job(dead)
        if failures:
            raise _not_undone(self.domain.name, pending.name, failures)
        definition = self.catalog.definition_of(dead.path)
        if not (is_ours(pending.version) and await to_thread.run_sync(may_be_there, definition)):
            # virt-backup writes its definition first, so that proves nothing while it is pending.
            await self.catalog.remove_definition(definition)
            await self._remove_package(dead)
        await self.catalog.remove_pending(dead.path)
        if dead.note is not None:
            await self.host.notes.remove(dead.note.path)

    async def _remove_package(self, dead: DeadBackup) -> None:
        pending, directory = dead.pending, self.catalog.definition_of(dead.path).parent
        place = directory.target.plain_directory
        if place is not None:
            # The note outlives the target, which can be gone.
            seen = await to_thread.run_sync(look_at, place / directory.name)
            if seen is None or not S_ISDIR(seen.st_mode):
                return
        location = Location.below(directory, pending.packager, pending.name)
        await remove_package(location, packed_files(pending))

    async def _revert_all(self, dead: DeadBackup) -> list[errors.VirtBackupError]:
        failures: list[errors.VirtBackupError] = []
        try:
            disks = await self._disks_to_revert(dead)
        except errors.VirtBackupError as error:
            return [error]
        if dead.pending.quiesce and (dead.note is not None or disks):
            # libvirt freezes and thaws in one call, and can have died in between. A pull job begins
            # in a guest that the backup froze, and the backup can have died in between.
            with suppress(errors.HypervisorError):
                if await self.domain.thaw():
                    _log.warning("%s: the guest was still frozen: thawed", self.domain.name)
        for disk in disks:
            try:
                note = partial(self._note, dead)
                await revert_overlay(self.host.images, self.hypervisor, self.domain, disk, note)
            except errors.VirtBackupError as error:
                failures.append(error)
        return failures

    async def _disks_to_revert(self, dead: DeadBackup) -> list[OverlaidDisk]:
        if dead.note is not None or not dead.overlaid:
            return dead.overlaid
        return await borne_out(self.host, self.domain, dead)

    async def _note(self, dead: DeadBackup, dev: str) -> None:
        if dead.note is not None:
            await self.host.notes.note_committed(dead.note.path, dev)

    async def _end_job(self, dead: DeadBackup) -> list[errors.VirtBackupError]:
        job = dead.pending.pull_job
        if job is None:
            return []
        try:
            if dead.note is None:
                # libvirt knows whose job it is. The next backup deletes a checkpoint that is left.
                with suppress(errors.DomainGoneError, errors.DomainNotFoundError):
                    await end_job(self.domain, job)
                await check_nothing_left(self.host.images, job)
            else:
                await end_pull(self.host.images, self.hypervisor, self.domain, job)
                definition = self.catalog.definition_of(dead.path)
                await drop_checkpoint(
                    self.host.images, self.hypervisor, self.domain, dead.pending, definition
                )
        except errors.VirtBackupError as error:
            return [error]
        return []


def _not_undone(
    domain: str, backup: str, failures: list[errors.VirtBackupError]
) -> errors.RollbackError:
    told = joined(failures)
    return errors.RollbackError(
        f"backup {backup} cannot be undone: {told.message}",
        domain=domain,
        hint=f"{told.hint} Then {_AGAIN}." if told.hint else f"Fix the cause, then {_AGAIN}.",
    )


async def read_notes(host: Host, emit: Emit) -> Notes:
    """Return this host's notes; none, with a warning, if they cannot be trusted or read.

    Without a note, an undo leaves alone everything that is in doubt, so that is safe.
    """
    try:
        notes = await host.read_notes()
    except errors.StorageError as error:
        emit(Warned(str(error)))
        return Notes(())
    for problem in notes.problems:
        emit(Warned(f"a note of this host cannot be read: {problem}"))
    return notes


async def undo_dead_backups(  # noqa: PLR0913 -- an undo is about all of these
    hypervisor: HypervisorPort,
    domain: DomainPort,
    catalog: Catalog,
    host: Host,
    emit: Emit,
    *,
    is_alone: bool,
) -> None:
    """Undo every dead backup of a domain into a target; the caller holds the domain's lock.

    Raises:
        RollbackError: one could not be undone; the others were tried anyway.
    """
    undo = Undo(hypervisor, domain, catalog, host, is_alone)
    failures = []
    for dead in await _dead_backups(domain, catalog, await read_notes(host, emit)):
        emit(Warned(f"undoing backup {dead.pending.name}, which was killed", domain.name))
        try:
            await undo.of(dead)
        except errors.RollbackError as error:
            failures.append(error)
    if failures:
        raise failures[0]


async def _dead_backups(domain: DomainPort, catalog: Catalog, notes: Notes) -> list[DeadBackup]:
    # A copy touches no domain; whoever makes it has another lock, and might be alive.
    guest = Guest(domain.name, domain.uuid)
    scan = await catalog.scan_pending(guest)
    found = [one for one in scan.pending if one.pending.copied_from is None]
    dead = [await dead_backup(notes, pending) for pending in found]
    noted = {backup.note.path for backup in dead if backup.note is not None}
    # Also those whose pending file is gone, or can no longer be read.
    places = map(TargetPath.at, catalog.pending_directories(guest))
    directories = [await to_thread.run_sync(place.real_path) for place in places]
    dead += [
        DeadBackup(note.pending, TargetFile.of(note.pending_path), note)
        for note in notes.notes
        if note.path not in noted and note.pending_path.parent in directories
    ]
    # Another domain can have had this name at that time.
    return [backup for backup in dead if uuid_of(backup.pending) in (None, domain.uuid)]

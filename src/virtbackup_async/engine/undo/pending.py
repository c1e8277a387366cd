"""Undoing a backup whose process died: from what this host noted of it, and from what is so now.

The note and the pending file were on disk before anything was made, so they name all that there
can be: overlays, the package, the definition. What is really there is looked up now; what may be
touched, and what is left to a person where there is no note, stands in ``evidence``. A backup that
got as far as its definition is whole: only its domain and its pending file are put in order.

``clean`` calls it for every pending backup; ``backup`` for those of a domain that is about to be
backed up. The caller holds the domain's lock, so the pending file has no living owner.
"""

import logging
from contextlib import suppress
from functools import partial

from anyio import Path as AsyncPath
from anyio import to_thread
from msgspec import Struct

from virtbackup_async.catalog.definition_file import is_ours
from virtbackup_async.catalog.host_notes import Notes
from virtbackup_async.catalog.scanning import definition_path
from virtbackup_async.catalog.store import Catalog, may_be_there
from virtbackup_async.engine.host_state import Host
from virtbackup_async.engine.ports import DomainPort, HypervisorPort, ImageUser
from virtbackup_async.engine.undo.checkpoints import drop_checkpoint
from virtbackup_async.engine.undo.evidence import (
    DeadBackup,
    borne_out,
    check_nothing_left,
    dead_backup,
    joined,
)
from virtbackup_async.engine.undo.find_domain import uuid_of
from virtbackup_async.engine.undo.overlay import OverlaidDisk, revert_overlay
from virtbackup_async.engine.undo.pull_job import end_job, end_pull
from virtbackup_async.engine.undo.virt_backup_running import refuse_while_virt_backup_runs
from virtbackup_async.errors import (
    DomainGoneError,
    DomainNotFoundError,
    HypervisorError,
    LockHeldError,
    RollbackError,
    StorageError,
    VirtBackupError,
)
from virtbackup_async.events import Emit, Warned
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.model.packager import Location, packed_files
from virtbackup_async.packagers.registry import remove_package

_AGAIN = "run `virtbackup clean -b` again"

_log = logging.getLogger(__name__)


class Undo(Struct, frozen=True):
    """What an undo works with, for all backups of a domain.

    Attributes:
        is_alone: whether no other user of the host works on the domain either: of what he makes,
            this host has no note that we can read.
    """

    hypervisor: HypervisorPort
    domain: ImageUser
    catalog: Catalog
    host: Host
    is_alone: bool

    async def of(self, dead: DeadBackup) -> None:
        """Put the domain's disks back, remove what is half-made; pending file and note go last.

        Raises:
            RollbackError: something could not be undone; the pending file stays. Safe to run again.
            LockHeldError: a virt-backup, or another user, may be working on it right now.
        """
        pending = dead.pending
        if dead.note is None and not self.is_alone:
            raise LockHeldError(
                f"{self.domain.name}: another user works on it, and {pending.name} may be his",
                hint="Let him end, then run the command again.",
            )
        if not is_ours(pending.version):
            await refuse_while_virt_backup_runs(pending.name)
        failures = await self._put_back_all(dead)
        failures += await self._end_job(dead)
        if failures:
            raise _not_undone(self.domain.name, pending.name, failures)
        definition = definition_path(dead.path)
        if not (is_ours(pending.version) and await to_thread.run_sync(may_be_there, definition)):
            # virt-backup writes its definition first: beside its pending file it proves nothing.
            await self.catalog.remove_definition(definition)
            await self._remove_package(dead)
        await self.catalog.remove_pending(dead.path)
        if dead.note is not None:
            await self.host.notes.remove(dead.note.path)

    async def _remove_package(self, dead: DeadBackup) -> None:
        pending, directory = dead.pending, dead.path.parent
        # What a note tells of may be gone, with the target and all.
        if await AsyncPath(directory).is_dir():
            location = Location(pending.packager, directory, pending.name)
            await remove_package(location, packed_files(pending))

    async def _put_back_all(self, dead: DeadBackup) -> list[VirtBackupError]:
        failures: list[VirtBackupError] = []
        try:
            disks = await self._disks_to_put_back(dead)
        except VirtBackupError as error:
            return [error]
        if dead.pending.quiesce and (dead.note is not None or disks):
            # libvirt thaws in the call that freezes, and may have died in it; a pull job is begun
            # in a guest that we froze, and may have died with.
            with suppress(HypervisorError):
                if await self.domain.thaw():
                    _log.warning("%s: the guest was still frozen: thawed", self.domain.name)
        for disk in disks:
            try:
                note = partial(self._note, dead)
                await revert_overlay(self.host.images, self.hypervisor, self.domain, disk, note)
            except VirtBackupError as error:
                failures.append(error)
        return failures

    async def _disks_to_put_back(self, dead: DeadBackup) -> list[OverlaidDisk]:
        if dead.note is not None or not dead.overlaid:
            return dead.overlaid
        return await borne_out(self.host, self.domain, dead)

    async def _note(self, dead: DeadBackup, dev: str) -> None:
        if dead.note is not None:
            await self.host.notes.note_committed(dead.note.path, dev)

    async def _end_job(self, dead: DeadBackup) -> list[VirtBackupError]:
        job = dead.pending.pull_job
        if job is None:
            return []
        try:
            if dead.note is None:
                # libvirt tells whose job it is. A checkpoint that may be left, the next backup
                # removes.
                with suppress(DomainGoneError, DomainNotFoundError):
                    await end_job(self.domain, job)
                await check_nothing_left(self.host.images, job)
            else:
                await end_pull(self.host.images, self.hypervisor, self.domain, job)
                await drop_checkpoint(
                    self.host.images, self.hypervisor, self.domain, dead.pending, dead.path
                )
        except VirtBackupError as error:
            return [error]
        return []


def _not_undone(domain: str, backup: str, failures: list[VirtBackupError]) -> RollbackError:
    told = joined(failures)
    return RollbackError(
        f"{domain}: backup {backup} cannot be undone: {told.message}",
        hint=f"{told.hint} Then {_AGAIN}." if told.hint else f"Mend the cause, then {_AGAIN}.",
    )


async def read_notes(host: Host, emit: Emit) -> Notes:
    """Return this host's notes; none, with a warning, where they cannot be believed or read.

    What has no note is then left alone where it is in doubt, so that nothing is done wrongly.
    """
    try:
        notes = await host.read_notes()
    except StorageError as error:
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
        RollbackError: one could not be undone; the others were tried all the same.
    """
    undo = Undo(hypervisor, domain, catalog, host, is_alone)
    failures = []
    for dead in await _dead_backups(domain, catalog, await read_notes(host, emit)):
        emit(Warned(f"undoing backup {dead.pending.name}, which was killed", domain.name))
        try:
            await undo.of(dead)
        except RollbackError as error:
            failures.append(error)
    if failures:
        raise failures[0]


async def _dead_backups(domain: DomainPort, catalog: Catalog, notes: Notes) -> list[DeadBackup]:
    found = (await catalog.scan_domain(domain.name)).pending
    dead = [await dead_backup(notes, pending) for pending in found]
    noted = {backup.note.path for backup in dead if backup.note is not None}
    # Of those whose pending file is gone, or cannot be read any more.
    place = TargetPath.of(catalog.domain_directory(domain.name), 1)
    directory = await to_thread.run_sync(place.real_path)
    dead += [
        DeadBackup(note.pending, note.pending_path, note)
        for note in notes.notes
        if note.path not in noted and note.pending_path.parent == directory
    ]
    # Another domain may have had this name then; its disks are not this one's.
    return [backup for backup in dead if uuid_of(backup.pending) in (None, domain.uuid)]

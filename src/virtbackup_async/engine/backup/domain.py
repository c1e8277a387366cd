"""The backup of one domain, from the pending file to the definition.

::

    lock the domain's UUID
    │ inspect its disks, check images and target                   nothing is touched yet
    │ host note, pending file                ── undone by: remove them, last of all
    │ │ (checkpoint, with a pull job)        ── undone by: delete it
    │ │ │ package                            ── undone by: remove it
    │ │ │ │ snapshot or pull job, if it runs ── undone by: revert each overlay; end the job
    │ │ │ │ │ copy the domain's state, whose files can change at any time
    │ │ │ │ │ copy the disks concurrently; release each disk as soon as it is copied
    │ │ │ package durable, definition        from here on the backup is complete
    │ delete the checkpoints that no next backup can be based on; remove the pending file

Each level is an ``async with``: whatever fails inside, the levels undo themselves from the
innermost out. An undo that fails raises ``RollbackError``, and then the pending file stays.
"""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import anyio
from anyio import to_thread
from msgspec import Struct
from msgspec.structs import replace

from virtbackup_async import errors
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.engine.backup.bases import find_candidates
from virtbackup_async.engine.backup.definition import (
    build_definition,
    complete_backup,
    done_event,
    method_of,
)
from virtbackup_async.engine.backup.disk_copy import DiskJob, copy_disk
from virtbackup_async.engine.backup.inspection import Inspection, inspect_domain
from virtbackup_async.engine.backup.pending import StartedBackup, remove_pending, write_pending
from virtbackup_async.engine.backup.state import StateJob, copy_state
from virtbackup_async.engine.domain_states import check_still_active
from virtbackup_async.engine.heads.memory import adding
from virtbackup_async.engine.locks import LockWait, hold_domain
from virtbackup_async.engine.outcome import most_severe
from virtbackup_async.engine.plan import PlannedBackup, target_of
from virtbackup_async.engine.point_in_time.interface import DisksRequest, PointInTimeDisks
from virtbackup_async.engine.point_in_time.open import WantedDisks, open_disks
from virtbackup_async.engine.ports import DomainPort
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.engine.undo.pending import undo_dead_backups
from virtbackup_async.engine.undo.pull_job import checkpoint_of
from virtbackup_async.events import (
    BackupDone,
    BackupStarted,
    DiskReading,
    DisksHeld,
    Emit,
    Phase,
    PhaseChanged,
    Warned,
)
from virtbackup_async.files.held import Held, open_held, to_hold
from virtbackup_async.model.backup import Definition, DiskRecord
from virtbackup_async.model.domain import BackingImage, Disk
from virtbackup_async.model.target_file import TargetFile
from virtbackup_async.model.tracking import Tracking, is_checkpoint_of
from virtbackup_async.packagers.interface import IncrementalWriter, PackageWriter
from virtbackup_async.packagers.registry import open_writer
from virtbackup_async.repository import find_repository

MAX_TRIES = 3


class _Attempt(Struct, frozen=True):
    """One attempt to back a domain up: the facts, and the names of everything it creates."""

    runtime: Runtime
    planned: PlannedBackup
    inspection: Inspection
    started: StartedBackup
    held: Held

    @property
    def domain(self) -> str:
        return self.inspection.info.name

    @property
    def backup(self) -> str:
        return self.started.pending.name

    def enter(self, phase: Phase) -> None:
        self.runtime.emit(PhaseChanged(self.domain, phase))


async def back_up_domain(
    runtime: Runtime, planned: PlannedBackup, *, wait_s: float = 0
) -> BackupDone:
    """Back one domain up; if another process works on it, wait for ``wait_s`` seconds at most.

    Raises:
        VirtBackupError: there is no backup; the domain is on its own images and nothing is left.
        RollbackError: there is no backup, and something is left to clean.
    """
    runtime.emit(PhaseChanged(planned.domain, Phase.PREPARING))
    domain = await runtime.hypervisor.domain(planned.domain)
    catalog = runtime.host.catalog(target_of(planned.group))
    waited: list[str] = []
    lock_wait = LockWait(wait_s, partial(_tell_waiting, runtime.emit, domain.name, waited))
    doing = f"backup of group {planned.group.name}"
    lock = hold_domain(runtime.host.images, domain.name, domain.uuid, doing, lock_wait)
    async with lock as is_alone:
        if waited:
            runtime.emit(PhaseChanged(domain.name, Phase.PREPARING))
        await undo_dead_backups(
            runtime.hypervisor,
            domain,
            catalog,
            runtime.host,
            runtime.emit,
            is_alone=is_alone,
        )
        for _ in range(MAX_TRIES - 1):
            try:
                return await _try(runtime, planned, domain, catalog)
            except errors.ChangedMeanwhileError as error:
                runtime.emit(Warned(f"{error.message}: starting over", domain.name))
        return await _try(runtime, planned, domain, catalog)


def _tell_waiting(emit: Emit, domain: str, waited: list[str], message: str) -> None:
    waited.append(message)
    emit(Warned(f"waiting: {message}", domain))
    emit(PhaseChanged(domain, Phase.WAITING, reason=message))


async def _try(
    runtime: Runtime, planned: PlannedBackup, domain: DomainPort, catalog: Catalog
) -> BackupDone:
    began_s = anyio.current_time()
    was_active = (await domain.info()).is_active
    try:
        async with _open_attempt(runtime, planned, domain, catalog) as attempt:
            definition, path = await _copy(attempt)
    except (errors.NbdError, errors.HypervisorError, BaseExceptionGroup) as raised:
        error = most_severe(raised) if isinstance(raised, BaseExceptionGroup) else raised
        if error is None:
            raise
        if was_active and isinstance(error, errors.NbdError | errors.HypervisorError):
            await check_still_active(domain, error)
        raise error from raised.__cause__ if error is raised else raised
    duration_s = anyio.current_time() - began_s
    broken = tuple(disk.dev for disk in attempt.inspection.selection.broken)
    return replace(done_event(planned, definition, path, duration_s), missing=broken)


@asynccontextmanager
async def _open_attempt(
    runtime: Runtime, planned: PlannedBackup, domain: DomainPort, catalog: Catalog
) -> AsyncGenerator[_Attempt]:
    """Write the pending file; remove it at the end, unless something is left to undo."""
    inspection = await inspect_domain(runtime, planned, domain, catalog)
    started = await write_pending(runtime, planned, inspection)
    left = False
    try:
        async with (
            open_held(to_hold(started.directory)) as held,
            checkpoint_of(
                runtime.host.images,
                runtime.hypervisor,
                domain,
                started.pending,
                catalog.definition_path(started.pending),
            ),
        ):
            yield _Attempt(runtime, planned, inspection, started, held)
    except BaseException as error:
        left = _leaves_something(error)
        raise
    finally:
        if not left:
            with anyio.CancelScope(shield=True):
                await remove_pending(runtime, inspection, started)


def _leaves_something(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return isinstance(most_severe(error), errors.RollbackError)
    return isinstance(error, errors.RollbackError)


async def _copy(attempt: _Attempt) -> tuple[Definition, TargetFile]:
    """Fill the package and make the backup complete; return its definition and its path."""
    runtime, pending = attempt.runtime, attempt.started.pending
    inspection, catalog = attempt.inspection, attempt.inspection.catalog
    group, method = attempt.planned.group.name, method_of(inspection)
    devs, uuid = tuple(pending.disks), inspection.domain.uuid
    readings = _readings(inspection.tracking)
    runtime.emit(BackupStarted(group, attempt.domain, attempt.backup, devs, method, uuid, readings))
    async with open_writer(
        pending.packager, attempt.started.directory, attempt.backup, runtime.cpu
    ) as package:
        _warn_of_damage(attempt, package)
        async with _open_disks(attempt) as disks:
            runtime.emit(
                DisksHeld(attempt.domain, disks.quiesced, disks.frozen_ms, disks.not_quiesced)
            )
            attempt.enter(Phase.COPYING)
            state = await copy_state(runtime, _state_job(attempt), package)
            records = await _copy_disks(attempt, package, disks)
        attempt.enter(Phase.FINISHING)
        definition = await build_definition(inspection, pending, records, state, disks)
        definition = replace(definition, note=attempt.planned.note, pinned=attempt.planned.pinned)
        path = catalog.definition_path(definition)
        add = partial(adding, runtime.host, catalog, runtime.emit)
        definition, listed = await complete_backup(package, attempt.held, definition, add)
    if listed is not None:
        raise listed
    if pending.pull_job is not None and inspection.tracking.disks:
        await drop_unneeded_checkpoints(inspection, runtime.emit)
    return definition, path


def _readings(tracking: Tracking) -> tuple[DiskReading, ...]:
    return tuple(
        DiskReading(dev, disk.base.backup if disk.base else None, disk.reason)
        for dev, disk in tracking.disks.items()
    )


def _warn_of_damage(attempt: _Attempt, package: PackageWriter) -> None:
    if isinstance(package, IncrementalWriter) and (problem := package.take_problem()):
        attempt.runtime.emit(
            Warned(
                f"{problem}: older backups are damaged until what this one finds on the disks is "
                f"stored again. {errors.REPAIR_HINT}",
                attempt.domain,
            )
        )


def _open_disks(attempt: _Attempt) -> AbstractAsyncContextManager[PointInTimeDisks]:
    runtime, inspection, started = attempt.runtime, attempt.inspection, attempt.started
    selection = inspection.selection
    request = DisksRequest(
        inspection.images,
        runtime.hypervisor,
        inspection.domain,
        selection.others,
        attempt.planned.quiesce,
        runtime.emit,
    )
    wanted = WantedDisks(
        inspection.info.is_active,
        selection.pull,
        selection.disks,
        selection.chains,
        inspection.tracking,
    )
    note = partial(runtime.host.notes.note_committed, started.note.path)
    return open_disks(request, wanted, started.pending, note)


async def _copy_disks(
    attempt: _Attempt, package: PackageWriter, disks: PointInTimeDisks
) -> dict[str, DiskRecord]:
    runtime, selected = attempt.runtime, attempt.inspection.selection.disks
    slots = anyio.CapacityLimiter(runtime.config.parallel_disks)
    records: dict[str, DiskRecord] = {}

    async def copy(disk: Disk) -> None:
        async with slots:
            with errors.about_disk(disk.dev):
                records[disk.dev] = await copy_disk(
                    runtime, _disk_job(attempt, disk), package, disks
                )

    async with anyio.create_task_group() as copies:
        for disk in selected:
            copies.start_soon(copy, disk, name=f"copy {attempt.domain}/{disk.dev}")
    return {disk.dev: records[disk.dev] for disk in selected}


def _disk_job(attempt: _Attempt, disk: Disk) -> DiskJob:
    pending, group = attempt.started.pending, attempt.planned.group
    named = pending.disks[disk.dev]
    return DiskJob(
        attempt.domain,
        attempt.backup,
        disk,
        (named.target, *named.backing),
        pending.date,
        attempt.runtime.limits_of(group.name),
        group.audit_percent,
    )


def _state_job(attempt: _Attempt) -> StateJob:
    state = attempt.inspection.selection.state
    return StateJob(attempt.domain, state, attempt.backup, attempt.started.path.parent)


async def drop_unneeded_checkpoints(inspection: Inspection, emit: Emit) -> None:
    """Delete a running domain's checkpoints for a target that no next backup can be based on.

    Foreign checkpoints, and those for other targets, are left alone.

    A failure is only a warning: the next backup tries again.

    Args:
        inspection: the facts about the domain from before the backup that is now complete.
        emit: where the warning goes.
    """
    try:
        await _drop_unneeded(inspection)
    except errors.VirtBackupError as error:
        emit(Warned(f"old checkpoints could not be removed: {error.message}", inspection.info.name))


async def _drop_unneeded(inspection: Inspection) -> None:
    domain, catalog = inspection.domain, inspection.catalog
    repository = await to_thread.run_sync(find_repository, catalog.target)
    if repository is None:
        return
    tracked = inspection.tracking.disks
    needed = {
        found.checkpoint
        for dev, found in (await find_candidates(catalog, inspection.info)).items()
        if dev not in tracked or tracked[dev].checkpoint
    }
    devs: dict[str, list[str]] = {name: [] for name in await domain.checkpoint_names()}
    for dev, disk in tracked.items():
        if disk.checkpoint and disk.base is None and disk.image_id is not None:
            # The image may be an older copy, with a bitmap that libvirt has forgotten.
            image = BackingImage(inspection.selection.chains[dev][0].path, "qcow2")
            for name in (await inspection.images.info(image)).bitmaps:
                devs.setdefault(name, []).append(dev)
    for name, with_bitmap in devs.items():
        if is_checkpoint_of(name, repository.id) and name not in needed:
            await domain.delete_checkpoint(name, with_bitmap)

"""The backup of one domain, from the intent to the definition.

::

    lock the domain's UUID
    │ look at its disks, check images and target                        nothing touched yet
    │ note of this host, pending file          ── undone by: remove them, last of all
    │ │ (checkpoint, with a pull job)          ── undone by: remove it
    │ │ │ package                              ── undone by: remove it
    │ │ │ │ snapshot or pull job, if it runs   ── undone by: commit each overlay; end the job
    │ │ │ │ │ copy the domain's state, which nothing holds still
    │ │ │ │ │ copy the disks side by side; commit each one's overlay as soon as it is copied
    │ │ │ package durable, definition          from here on the backup is complete
    │ remove the checkpoints that no backup goes on from any more, and the pending file

Each level is an ``async with``: whatever goes wrong inside, the levels undo themselves from the
innermost out. An undo that fails raises ``RollbackError``, and then the pending file stays.
"""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
from anyio import to_thread
from msgspec import Struct
from msgspec.structs import replace

from virtbackup_async.catalog.store import Catalog, ListedError
from virtbackup_async.engine.backup.disk_copy import copy_disk, image_files
from virtbackup_async.engine.backup.incremental_copy import DiskJob
from virtbackup_async.engine.backup.left_out import tell_left_out
from virtbackup_async.engine.backup.originals import with_originals
from virtbackup_async.engine.backup.pending import Intent, forget_intent, write_intent
from virtbackup_async.engine.backup.selection import Selection, select_disks
from virtbackup_async.engine.backup.state_copy import CopiedState, StateJob, copy_state
from virtbackup_async.engine.backup.tracking import track
from virtbackup_async.engine.domain_states import (
    SAVED,
    check_free,
    check_snapshot,
    check_still_active,
)
from virtbackup_async.engine.locks import LockWait, hold_domain
from virtbackup_async.engine.outcome import done_event, most_severe
from virtbackup_async.engine.plan import PlannedBackup, target_of
from virtbackup_async.engine.point_in_time.choose import is_pulled
from virtbackup_async.engine.point_in_time.offline_nbd import open_offline_nbd
from virtbackup_async.engine.point_in_time.pull_job import open_pull_job
from virtbackup_async.engine.point_in_time.snapshot import (
    NOT_QUIESCED,
    ChangedMeanwhileError,
    OfflineDisks,
    PointInTimeDisks,
    open_snapshot,
)
from virtbackup_async.engine.ports import DomainPort
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.engine.undo.checkpoints import checkpoint_of, drop_unneeded_checkpoints
from virtbackup_async.engine.undo.overlay import OverlaidDisk
from virtbackup_async.engine.undo.pending import undo_dead_backups
from virtbackup_async.errors import HypervisorError, NbdError, RollbackError, StorageError
from virtbackup_async.events import (
    BackupDone,
    BackupStarted,
    Phase,
    PhaseChanged,
    Warned,
)
from virtbackup_async.files.held import Held, open_held
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.model import domain_xml
from virtbackup_async.model.backup import Definition, DiskRecord, Pending
from virtbackup_async.model.domain import Disk, DomainInfo
from virtbackup_async.model.packager import type_of
from virtbackup_async.model.pull import Method, PullJob
from virtbackup_async.packagers.interface import IncrementalWriter, PackageWriter
from virtbackup_async.packagers.registry import open_writer
from virtbackup_async.repository import REPAIR_HINT

MAX_TRIES = 3
UNDO_TIMEOUT_S = 60


class _Try(Struct, frozen=True):
    """One attempt: what was found of the domain, and what is about to be made."""

    planned: PlannedBackup
    domain: DomainPort
    info: DomainInfo
    selection: Selection
    catalog: Catalog
    intent: Intent
    held: Held

    @property
    def pending(self) -> Pending:
        return self.intent.pending

    @property
    def job(self) -> PullJob | None:
        return self.intent.job

    @property
    def directory(self) -> Path:
        return self.intent.path.parent


async def back_up_domain(
    runtime: Runtime, planned: PlannedBackup, *, wait_s: float = 0
) -> BackupDone:
    """Back one domain up; wait for one that somebody else works on, ``wait_s`` seconds at most.

    Raises:
        VirtBackupError: there is no backup; the domain is on its own images and nothing is left.
        RollbackError: there is no backup, and something is left to clean.
    """
    runtime.emit(PhaseChanged(planned.domain, Phase.PREPARING))
    domain = await runtime.hypervisor.domain(planned.domain)
    catalog = Catalog(target_of(planned.group))
    lock_wait = LockWait(
        wait_s,
        lambda message: runtime.emit(Warned(f"waiting: {message}", domain.name)),
    )
    lock = hold_domain(runtime.lock_directory, domain.name, domain.uuid, "backup", lock_wait)
    async with lock as is_alone:
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
            except ChangedMeanwhileError as error:
                runtime.emit(Warned(f"{error.message}: starting over", domain.name))
        return await _try(runtime, planned, domain, catalog)


async def _try(
    runtime: Runtime, planned: PlannedBackup, domain: DomainPort, catalog: Catalog
) -> BackupDone:
    began_s = anyio.current_time()
    was_active = (await domain.info()).is_active
    try:
        async with _open_try(runtime, planned, domain, catalog) as attempt:
            definition, path = await _copy(runtime, attempt)
    except (NbdError, HypervisorError, BaseExceptionGroup) as raised:
        error = most_severe(raised) if isinstance(raised, BaseExceptionGroup) else raised
        if error is None:
            raise
        if was_active and isinstance(error, NbdError | HypervisorError):
            await check_still_active(domain, error)
        raise error from raised.__cause__ if error is raised else raised
    duration_s = anyio.current_time() - began_s
    broken = tuple(disk.dev for disk in attempt.selection.broken)
    return replace(done_event(planned, definition, path, duration_s), missing=broken)


@asynccontextmanager
async def _open_try(
    runtime: Runtime, planned: PlannedBackup, domain: DomainPort, catalog: Catalog
) -> AsyncGenerator[_Try]:
    """Look at the domain, and put the intent on disk; take it away unless something is left."""
    info = await domain.info()
    pull, warning = await is_pulled(runtime.hypervisor, planned.group, info, planned.disks)
    if warning is not None:
        runtime.emit(Warned(warning, domain.name))
    selection = await select_disks(info, planned.disks, runtime.host, pull=pull)
    tell_left_out(runtime.emit, domain.name, selection)
    if info.is_saved:
        runtime.emit(Warned(f"{NOT_QUIESCED}: {SAVED}", domain.name))
    if info.is_active:
        if not pull:
            check_snapshot(info)
        await check_free(domain, [disk.dev for disk in selection.disks])
    if pull and type_of(planned.group.packager).is_incremental:
        group = planned.group
        full_since = (runtime.now() - group.full_every).timestamp() if group.full_every else 0
        tracking = await track(
            runtime.host.images,
            catalog,
            domain,
            info,
            selection,
            full_since,
            with_snapshots=group.track_with_snapshots,
        )
        selection = replace(selection, tracking=tracking)
    intent = await write_intent(runtime, catalog, planned, info, selection)
    left = False
    try:
        async with (
            open_held([TargetPath.of(intent.path.parent, 1)]) as held,
            checkpoint_of(
                runtime.host.images, runtime.hypervisor, domain, intent.pending, intent.path
            ),
        ):
            yield _Try(planned, domain, info, selection, catalog, intent, held)
    except BaseException as error:
        left = _leaves_something(error)
        raise
    finally:
        if not left:
            with anyio.CancelScope(shield=True):
                await forget_intent(runtime, catalog, intent)


def _leaves_something(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return isinstance(most_severe(error), RollbackError)
    return isinstance(error, RollbackError)


async def _copy(runtime: Runtime, attempt: _Try) -> tuple[Definition, Path]:
    """Fill the package and make the backup complete."""
    pending = attempt.pending
    runtime.emit(
        BackupStarted(
            attempt.planned.group.name,
            attempt.domain.name,
            pending.name,
            tuple(pending.disks),
            _method(attempt),
        )
    )
    async with open_writer(
        pending.packager, attempt.directory, pending.name, runtime.cpu
    ) as package:
        _tell_problem(runtime, attempt, package)
        async with _still_disks(runtime, attempt) as still:
            runtime.emit(PhaseChanged(attempt.domain.name, Phase.COPYING))
            state = await copy_state(runtime, _state_job(attempt), package)
            records = await _copy_disks(runtime, attempt, package, still)
        runtime.emit(PhaseChanged(attempt.domain.name, Phase.FINISHING))
        records = await with_originals(runtime.host.images, records, attempt.selection)
        definition = _definition(attempt, records, state, still)
        path = attempt.catalog.definition_path(definition)
        listed: ListedError | None = None
        with anyio.CancelScope(shield=True):
            # A cancellation between the two would discard the data of a complete backup.
            await package.finish()
            await to_thread.run_sync(attempt.held.check)
            try:
                await attempt.catalog.write_definition(definition)
                await _see_it_beside_its_data(attempt, path)
            except ListedError as error:
                listed = error  # told when the package is closed, and stays
    if listed is not None:
        raise listed
    if attempt.job is not None and attempt.job.tracking.disks:
        await drop_unneeded_checkpoints(
            runtime.host.images,
            attempt.catalog,
            attempt.domain,
            attempt.info,
            attempt.selection,
            runtime.emit,
        )
    return definition, path


async def _see_it_beside_its_data(attempt: _Try, path: Path) -> None:
    """Take a definition back that may have come into another directory than its package."""
    try:
        await to_thread.run_sync(attempt.held.check)
    except StorageError as error:
        try:
            await attempt.catalog.remove_definition(path)
        except StorageError:
            raise ListedError(error.message, hint=error.hint) from error
        raise


def _tell_problem(runtime: Runtime, attempt: _Try, package: PackageWriter) -> None:
    if isinstance(package, IncrementalWriter) and (problem := package.take_problem()):
        runtime.emit(
            Warned(
                f"{problem}: older backups are damaged until what this one finds on the disks is "
                f"stored again. {REPAIR_HINT}",
                attempt.domain.name,
            )
        )


def _still_disks(runtime: Runtime, attempt: _Try) -> AbstractAsyncContextManager[PointInTimeDisks]:
    if not attempt.info.is_active:
        if attempt.selection.pull:
            selection = attempt.selection
            kept = [disk for disk in selection.disks if disk.dev not in selection.chains]
            return open_offline_nbd(
                runtime.host.images, attempt.domain, selection.chains, selection.tracking, kept
            )
        return _at_rest(runtime, attempt)
    runtime.emit(PhaseChanged(attempt.domain.name, Phase.FREEZING))
    if attempt.job is not None:
        return open_pull_job(
            runtime.host.images,
            runtime.hypervisor,
            attempt.domain,
            attempt.job,
            attempt.selection.others,
            runtime.emit,
            quiesce=attempt.planned.quiesce,
        )
    held = {
        dev: OverlaidDisk(
            dev, Path(disk.src), disk.type, Path(disk.snapshot or ""), of_this_run=True
        )
        for dev, disk in attempt.pending.disks.items()
    }
    return open_snapshot(
        runtime.host.images,
        runtime.hypervisor,
        attempt.domain,
        held,
        attempt.selection.others,
        runtime.emit,
        partial(runtime.host.notes.note_committed, attempt.intent.note.path),
        name=attempt.pending.name,
        quiesce=attempt.planned.quiesce,
    )


@asynccontextmanager
async def _at_rest(runtime: Runtime, attempt: _Try) -> AsyncGenerator[PointInTimeDisks]:
    still = OfflineDisks(runtime.host.images, attempt.domain)
    await still.watch(attempt.selection.disks)
    yield still


async def _copy_disks(
    runtime: Runtime, attempt: _Try, package: PackageWriter, still: PointInTimeDisks
) -> dict[str, DiskRecord]:
    slots = anyio.CapacityLimiter(runtime.config.parallel_disks)
    records: dict[str, DiskRecord] = {}
    limits = runtime.limits_of(attempt.planned.group.name)

    async def copy(disk: Disk) -> None:
        files = image_files(attempt.pending.name, disk)
        job = DiskJob(
            attempt.domain.name,
            attempt.pending.name,
            disk,
            files,
            attempt.pending.date,
            limits,
            attempt.planned.group.audit_percent,
        )
        async with slots:
            records[disk.dev] = await copy_disk(runtime, job, package, still)

    async with anyio.create_task_group() as disks:
        for disk in attempt.selection.disks:
            disks.start_soon(copy, disk, name=f"copy {attempt.domain.name}/{disk.dev}")
    return {disk.dev: records[disk.dev] for disk in attempt.selection.disks}


def _state_job(attempt: _Try) -> StateJob:
    state = attempt.selection.state
    return StateJob(attempt.domain.name, state, attempt.pending.name, attempt.directory)


def _definition(
    attempt: _Try, records: dict[str, DiskRecord], state: CopiedState, still: PointInTimeDisks
) -> Definition:
    pending = attempt.pending
    skipped = {disk.dev: disk.reason for disk in attempt.selection.left_out}
    return Definition(
        name=pending.name,
        domain_id=pending.domain_id,
        domain_name=pending.domain_name,
        domain_xml=_packed_xml(attempt),
        disks={dev: record.image.file for dev, record in records.items()},
        version=pending.version,
        date=pending.date,
        packager=pending.packager,
        domain_uuid=pending.domain_uuid,
        records=records,
        skipped={**skipped, **state.missing},
        quiesced=False if attempt.info.is_saved else still.quiesced,
        state="running" if attempt.info.is_active else "shutoff",
        method=_method(attempt),
        frozen_ms=still.frozen_ms,
        not_quiesced=SAVED if attempt.info.is_saved else still.not_quiesced,
        state_files=state.records,
    )


def _packed_xml(attempt: _Try) -> str:
    """Return the domain's XML as it fits the images in the package."""
    pending = attempt.pending
    if not attempt.selection.pull:
        return pending.domain_xml
    return domain_xml.with_raw_disks(pending.domain_xml, attempt.selection.chains.keys())


def _method(attempt: _Try) -> str:
    if attempt.selection.pull:
        return Method.PULL
    return Method.SNAPSHOT if attempt.info.is_active else "copy"

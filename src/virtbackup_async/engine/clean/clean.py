"""The ``clean`` command.

It undoes killed backups, finishes removals that were cut short, removes the backups that no rule
keeps, and prunes the repository. Each backup has an event of its own, and one that cannot be undone
or removed does not stop the others. Safe to repeat, to interrupt anywhere, and to run during
backups and restores.
"""

from collections.abc import Iterable, Iterator
from functools import partial

from anyio import CapacityLimiter, create_task_group, from_thread, to_thread
from msgspec import Struct

from virtbackup_async.catalog.amendment import hold_definitions
from virtbackup_async.catalog.host_notes import Notes
from virtbackup_async.catalog.removing import begin_removal, end_removal
from virtbackup_async.catalog.scanning import FoundBackup, Scan
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.engine.clean.pending import report_and_undo, undo_orphans
from virtbackup_async.engine.clean.plan import CleanTarget, clean_targets, plan_clean
from virtbackup_async.engine.clean.request import Cleaning, CleanRequest
from virtbackup_async.engine.clean.retention import RetentionDecision
from virtbackup_async.engine.clean.stray_files import clean_stray_files, report_new_problems
from virtbackup_async.engine.inventory.dates import local_time
from virtbackup_async.engine.inventory.occupied import occupied_bytes
from virtbackup_async.engine.inventory.unclaimed import unclaimed_backups
from virtbackup_async.engine.locks import LockWait, hold_package
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.engine.undo.evidence import DeadBackup, dead_backup
from virtbackup_async.engine.undo.pending import read_notes
from virtbackup_async.errors import (
    CorruptError,
    DefinitionError,
    LockHeldError,
    StorageError,
    VirtBackupError,
)
from virtbackup_async.events import (
    BackupRemoved,
    CleanVerdict,
    Emit,
    PendingLeft,
    PendingUndone,
    RemovalFailed,
    RepositorySwept,
    Warned,
)
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.model.packager import backup_paths
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.packagers.repository.map_files import list_maps
from virtbackup_async.repository import Pruned, find_repository, prune_repository

REMOVAL_BEGUN = "its removal was begun"


class CleanRun(Struct, frozen=True):
    """What a run removed, undid and left behind.

    Attributes:
        verdicts: one for each complete backup.
        removed: the backups that are gone.
        not_removed: those that could not be removed.
        undone: the killed backups that were undone.
        left: those that could not be undone, and why.
        swept: what pruning freed in each repository.
    """

    verdicts: tuple[CleanVerdict, ...]
    removed: tuple[BackupRemoved, ...]
    not_removed: tuple[RemovalFailed, ...]
    undone: tuple[PendingUndone, ...]
    left: tuple[PendingLeft, ...]
    swept: tuple[RepositorySwept, ...]


async def run_clean(runtime: Runtime, request: CleanRequest) -> CleanRun:
    """Clean the targets of groups; events report what was done and what is left.

    libvirt is connected to only if a killed backup may have changed a domain.

    Raises:
        NotFoundError: a named group does not exist.
        ConfigError: a named group has no target.
        StorageError: a target cannot be read; the others were cleaned.
        CorruptError: a repository is damaged, so nothing of it was removed.
    """
    runtime, recording = runtime.recording(
        CleanVerdict, BackupRemoved, RemovalFailed, PendingUndone, PendingLeft, RepositorySwept
    )
    await _clean(runtime, request)
    return CleanRun(
        recording.of(CleanVerdict),
        recording.of(BackupRemoved),
        recording.of(RemovalFailed),
        recording.of(PendingUndone),
        recording.of(PendingLeft),
        recording.of(RepositorySwept),
    )


async def _clean(runtime: Runtime, request: CleanRequest) -> None:
    config, emit = runtime.config, runtime.emit
    notes = await read_notes(runtime.host, emit) if request.broken else Notes(())
    slots = CapacityLimiter(config.threads)
    cleaning = Cleaning(runtime, request, runtime.now(), slots, notes)
    failures: list[StorageError | CorruptError] = []
    for target in await to_thread.run_sync(clean_targets, config, request.group_names):
        try:
            scan = await target.catalog.scan()
            left = await to_thread.run_sync(unclaimed_backups, config, target.catalog.target, scan)
            if left is not None:
                emit(left)
            await _clean_target(cleaning, target, scan)
        except (StorageError, CorruptError) as error:
            failures.append(error)
    await undo_orphans(cleaning)
    for failure in failures[1:]:
        emit(Warned(str(failure)))
    if failures:
        raise failures[0]


async def _clean_target(cleaning: Cleaning, target: CleanTarget, scan: Scan) -> None:
    await clean_stray_files(cleaning, target, scan)
    if cleaning.request.broken:
        await _undo_all(cleaning, target, scan)
    for found in scan.removed:
        await _end_removal(cleaning, target, found)
    if cleaning.request.complete:
        # Scan again: an undone backup may have turned out to be complete.
        again = await target.catalog.scan()
        report_new_problems(cleaning, target, scan, again)
        await _apply_retention(cleaning, target, again)
    if not cleaning.request.dry_run:
        await _prune(target.catalog.location, cleaning.emit)


async def _undo_all(cleaning: Cleaning, target: CleanTarget, scan: Scan) -> None:
    """Undo the pending backups: domains in parallel, the backups of one domain in turn."""
    by_domain: dict[str, list[DeadBackup]] = {}
    for found in scan.pending:
        dead = await dead_backup(cleaning.notes, found)
        by_domain.setdefault(dead.pending.domain_name, []).append(dead)

    async def undo(domain: str, group: str) -> None:
        async with cleaning.slots:
            for dead in by_domain[domain]:
                await report_and_undo(cleaning, target.catalog, group, dead)

    async with create_task_group() as domains:
        for domain in by_domain:
            group = target.group_of(domain)
            if group is not None:
                domains.start_soon(undo, domain, group, name=f"undo {domain}")


async def _end_removal(cleaning: Cleaning, target: CleanTarget, found: FoundBackup) -> None:
    if target.group_of(found.definition.domain_name) is not None:
        decision = RetentionDecision(found, keep=False, reasons=(REMOVAL_BEGUN,))
        await _carry_out(cleaning, target, decision)


async def _apply_retention(cleaning: Cleaning, target: CleanTarget, scan: Scan) -> None:
    drop_damaged = cleaning.request.drop_damaged
    decisions = list(plan_clean(target, scan, cleaning.now, drop_damaged=drop_damaged))
    for warning in _damage_warnings(decisions):
        cleaning.emit(warning)
    for decision in decisions:
        await _carry_out(cleaning, target, decision)


def _damage_warnings(decisions: Iterable[RetentionDecision]) -> Iterator[Warned]:
    """Warn of each domain that has damaged backups, and say so if none is good."""
    by_domain: dict[str, list[RetentionDecision]] = {}
    for decision in decisions:
        by_domain.setdefault(decision.found.definition.domain_name, []).append(decision)
    for domain, of_domain in by_domain.items():
        damaged = sum(decision.found.definition.is_damaged for decision in of_domain)
        if damaged:
            whole = len(of_domain) - damaged
            message = f"verify found {damaged} of its {len(of_domain)} backups damaged"
            left = "no rule counts a damaged one" if whole else "NONE IS GOOD"
            yield Warned(f"{message}; {left}", domain)


async def _carry_out(cleaning: Cleaning, target: CleanTarget, decision: RetentionDecision) -> None:
    """Report a decision, and remove the backup if it is not kept and this is no dry run."""
    found, definition = decision.found, decision.found.definition
    group = target.group_of(definition.domain_name) or ""
    domain, name = definition.domain_name, definition.name
    cleaning.emit(
        CleanVerdict(
            group=group,
            domain=domain,
            backup=name,
            date=local_time(definition).isoformat(),
            definition=str(found.path),
            keep=decision.keep,
            reasons=decision.reasons,
            damaged=definition.is_damaged,
            occupied_bytes=await _occupied_bytes(found),
        )
    )
    if decision.keep or cleaning.request.dry_run:
        return
    try:
        freed_bytes = await _remove_backup(target.catalog, found, cleaning.lock_wait(domain))
    except LockHeldError as error:
        cleaning.emit(RemovalFailed(group, domain, name, error.message, in_use=True))
    except VirtBackupError as error:
        cleaning.emit(RemovalFailed(group, domain, name, str(error)))
    else:
        if freed_bytes is not None:
            cleaning.emit(BackupRemoved(group, domain, name, freed_bytes))


async def _remove_backup(catalog: Catalog, found: FoundBackup, lock_wait: LockWait) -> int | None:
    """Remove a backup, or finish a removal that was begun.

    The definition becomes a note, the package is removed, then the note; each step is durable
    before the next, so a crash never leaves a listed backup without its data. A restore holds the
    package, and the backup stays. A pin that was set in the meantime is seen: pins are set, and
    definitions become notes, under one lock.

    Returns:
        How many bytes are free again; None if it is gone already, or pinned by now.

    Raises:
        LockHeldError: it is being restored; nothing was done.
        DefinitionError: its packager is not known; nothing was done.
        StorageError: the target is not writable; what is left is ended by the next ``clean``.
    """
    paths = backup_paths(found.definition, found.path.parent)
    async with hold_package(paths, exclusive=True, lock_wait=lock_wait):
        freed_bytes = await occupied_bytes([*paths, found.path])
        async with hold_definitions(found.path.parent):
            definition = await catalog.read_definition(found.path)
            if definition is None or definition.pinned:
                return None
            note = await begin_removal(found.path)
        for path in paths:
            await to_thread.run_sync(TargetPath.in_domain(path).remove)
        await end_removal(note)
    return freed_bytes


async def _occupied_bytes(found: FoundBackup) -> int:
    try:
        return await occupied_bytes(
            [*backup_paths(found.definition, found.path.parent), found.path]
        )
    except DefinitionError:
        return await occupied_bytes([found.path])


async def _prune(target: StorageLocation, emit: Emit) -> None:
    """Remove the chunks that no backup needs from the target's repository, if it has one.

    Raises:
        CorruptError: something is damaged that may be needed; nothing was removed.
        StorageError: the repository is not writable, or full.
    """
    try:
        pruned = await to_thread.run_sync(_pruned, target)
    except LockHeldError as error:
        emit(Warned(f"the repository is not pruned: {error.message}"))
        return
    if pruned is not None:
        emit(
            RepositorySwept(
                target=str(target),
                freed_bytes=pruned.freed_bytes,
                rewritten_bytes=pruned.rewritten_bytes,
                waiting_bytes=pruned.waiting_bytes,
                stored_bytes=pruned.stored_bytes,
                unrewritten_bytes=pruned.unrewritten_bytes,
            )
        )


def _pruned(target: StorageLocation) -> Pruned | None:
    repository = find_repository(target)
    if repository is None:
        return None
    maps = partial(list_maps, repository.storage)
    return prune_repository(repository, maps, from_thread.check_cancelled)

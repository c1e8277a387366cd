"""The ``clean`` command.

It undoes killed backups, finishes removals that were cut short, removes the backups that no rule
keeps, and prunes the repository. Each backup has an event of its own, and one that cannot be undone
or removed does not stop the others. Safe to repeat, to interrupt anywhere, and to run during
backups and restores.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby

from anyio import CapacityLimiter, create_task_group, to_thread
from msgspec import Struct

from virtbackup_async import events
from virtbackup_async.catalog.host_notes import Notes
from virtbackup_async.catalog.scanning import (
    FoundBackup,
    Problem,
    Scan,
    definition_path,
    is_removal_note,
)
from virtbackup_async.engine.clean.broken import find_broken, remove_broken
from virtbackup_async.engine.clean.object_lock import extend_target_locks
from virtbackup_async.engine.clean.pending import report_and_undo, undo_orphans
from virtbackup_async.engine.clean.plan import CleanTarget, clean_targets, plan_clean
from virtbackup_async.engine.clean.protection import protection_of, window_of
from virtbackup_async.engine.clean.prune import prune
from virtbackup_async.engine.clean.removal import remove_backup, report_removal
from virtbackup_async.engine.clean.request import Cleaning, CleanRequest
from virtbackup_async.engine.clean.retention import RetentionDecision
from virtbackup_async.engine.clean.stopped import accept_changes, stop_of
from virtbackup_async.engine.clean.stray_files import clean_stray_files, report_new_problems
from virtbackup_async.engine.clean.verdicts import verdict_on_broken, verdicts_on
from virtbackup_async.engine.heads.memory import Forgetting, compare, observe, warning_of
from virtbackup_async.engine.inventory.freed import files_of, would_free
from virtbackup_async.engine.inventory.guests import Guests
from virtbackup_async.engine.inventory.unclaimed import unclaimed_backups
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.engine.undo.evidence import DeadBackup, dead_backup
from virtbackup_async.engine.undo.pending import read_notes
from virtbackup_async.errors import (
    CorruptError,
    StorageError,
    VirtBackupError,
)

REMOVAL_BEGUN = "its removal was begun"


class CleanRun(Struct, frozen=True):
    """What a run removed, undid and left behind.

    Attributes:
        verdicts: one for each complete backup.
        removed: the backups that are gone.
        not_removed: those that could not be removed.
        stopped: the guests whose data changed suddenly, so that their earlier backups stay.
        undone: the killed backups that were undone.
        left: those that could not be undone, and why.
        swept: what pruning freed in each repository.
    """

    verdicts: tuple[events.CleanVerdict, ...]
    removed: tuple[events.BackupRemoved, ...]
    not_removed: tuple[events.RemovalFailed, ...]
    undone: tuple[events.PendingUndone, ...]
    left: tuple[events.PendingLeft, ...]
    swept: tuple[events.RepositorySwept, ...]
    stopped: tuple[events.CleanStopped, ...] = ()


async def run_clean(runtime: Runtime, request: CleanRequest) -> CleanRun:
    """Clean the targets of groups; events report what was done and what is left.

    libvirt is connected to only if a killed backup may have changed a domain.

    Raises:
        NotFoundError: a named group or an accepted backup does not exist.
        ConfigError: a named group has no target.
        StorageError: a target cannot be read; the others were cleaned.
        CorruptError: a repository is damaged, so nothing of it was removed.
    """
    runtime, recording = runtime.recording(
        events.CleanVerdict,
        events.BackupRemoved,
        events.RemovalFailed,
        events.PendingUndone,
        events.PendingLeft,
        events.RepositorySwept,
        events.CleanStopped,
    )
    await _clean(runtime, request)
    return CleanRun(
        recording.of(events.CleanVerdict),
        recording.of(events.BackupRemoved),
        recording.of(events.RemovalFailed),
        recording.of(events.PendingUndone),
        recording.of(events.PendingLeft),
        recording.of(events.RepositorySwept),
        recording.of(events.CleanStopped),
    )


async def _clean(runtime: Runtime, request: CleanRequest) -> None:
    config, emit = runtime.config, runtime.emit
    group = request.group_names[0] if len(request.group_names) == 1 else None
    await accept_changes(runtime, group, request.accepted)
    notes = await read_notes(runtime.host, emit) if request.broken else Notes(())
    slots = CapacityLimiter(config.threads)
    cleaning = Cleaning(runtime, request, runtime.now(), slots, notes)
    failures: list[StorageError | CorruptError] = []
    for target in await to_thread.run_sync(clean_targets, config, request.group_names):
        if any(group.append_only for group in target.neighbours):
            place = target.catalog.target
            emit(events.Warned(f"{place}: this host may only add files, so its keeper cleans it"))
            continue
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
        emit(events.Warned(str(failure)))
    if failures:
        raise failures[0]


async def _clean_target(cleaning: Cleaning, target: CleanTarget, scan: Scan) -> None:
    await _compare(cleaning, target, scan)
    await clean_stray_files(cleaning, target, scan)
    if cleaning.request.broken:
        await _undo_all(cleaning, target, scan)
    for found in scan.removed:
        await _end_removal(cleaning, target, found)
    for problem in scan.problems:
        if is_removal_note(problem.path):
            await _end_broken_removal(cleaning, target, problem, scan)
    if cleaning.request.complete:
        again = await _scan_after(cleaning, target, scan)
        await _apply_retention(cleaning, target, again)
    if not cleaning.request.dry_run:
        await prune(target.catalog.target, cleaning.emit)
        await extend_target_locks(cleaning.runtime, target.catalog.target)


async def _compare(cleaning: Cleaning, target: CleanTarget, scan: Scan) -> None:
    """Warn if the target is older than this host has seen it, and remember what is in it."""

    def includes(domain: str) -> bool:
        return target.group_of(domain) is not None

    host, emit = cleaning.runtime.host, cleaning.emit
    if cleaning.request.dry_run:
        for found in (await compare(host, target.catalog, scan, includes)).contradictions:
            emit(warning_of(found))
    else:
        await observe(host, target.catalog, scan, includes, emit)


async def _scan_after(cleaning: Cleaning, target: CleanTarget, before: Scan) -> Scan:
    """Return what the target holds now: an undone backup may have turned out to be complete."""
    is_untouched = not (before.pending or before.removed or before.problems)
    if cleaning.request.dry_run or is_untouched:
        return before
    again = await target.catalog.scan()
    report_new_problems(cleaning, target, before, again)
    return again


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
    domain = found.definition.domain_name
    if target.group_of(domain) is not None:
        if await _is_protected(target, domain, found):
            cleaning.emit(events.Warned(f"{found.path}: protected, so its removal waits", domain))
            return
        decision = RetentionDecision(found, keep=False, reasons=(REMOVAL_BEGUN,))
        await _carry_out(cleaning, target, [decision])


async def _is_protected(target: CleanTarget, domain: str, found: FoundBackup) -> bool:
    """Return whether a note that a removal was begun is too young: a thief could have put it."""
    window = window_of(target.neighbours, domain)
    protection = await to_thread.run_sync(protection_of, target.catalog.target, [found], window)
    return protection.reason(found) is not None


async def _end_broken_removal(
    cleaning: Cleaning, target: CleanTarget, problem: Problem, scan: Scan
) -> None:
    """End the removal of a backup whose definition cannot be read: its name says what it was."""
    domain = problem.domain
    group = target.group_of(domain)
    if group is None:
        return
    name = definition_path(problem.path).stem
    if window_of(target.neighbours, domain) is not None:
        # Nobody knows what it was, so nobody knows whether it may go.
        message = (
            f"{problem.path}: its removal waits: it cannot be read, and the group is protected"
        )
        cleaning.emit(events.Warned(message, domain))
        return
    try:
        broken = await find_broken(problem.path, scan)
    except VirtBackupError as error:
        cleaning.emit(events.RemovalFailed(group, domain, name, str(error)))
        return
    verdict = await verdict_on_broken(group, domain, broken, keep=False, reasons=(REMOVAL_BEGUN,))
    cleaning.emit(verdict)
    if not cleaning.request.dry_run:
        forgetting = Forgetting(cleaning.runtime.host, target.catalog.target, cleaning.emit)
        await forgetting.forget(domain, name)
        removal = remove_broken(broken, cleaning.lock_wait(domain))
        await report_removal(cleaning.emit, group, domain, name, removal)


async def _apply_retention(cleaning: Cleaning, target: CleanTarget, scan: Scan) -> None:
    decisions = await to_thread.run_sync(_decisions, cleaning, target, scan)
    guests = Guests(scan)
    of_guests = [[*of] for _, of in groupby(decisions, lambda one: guests.of(one.found).guest)]
    for of_guest in of_guests:
        for warning in _damage_warnings(of_guest, guests.word(guests.of(of_guest[0].found))):
            cleaning.emit(warning)
    for of_guest in of_guests:
        await _keep_to_rules(cleaning, target, of_guest)
    going = [decision.found for decision in decisions if not decision.keep]
    if cleaning.request.dry_run and going:
        freed_bytes = await would_free(target.catalog.target, files_of(going), cleaning.emit)
        names = tuple(found.definition.name for found in going)
        cleaning.emit(events.RemovalPlanned(str(target.catalog.target), names, freed_bytes))


async def _keep_to_rules(
    cleaning: Cleaning, target: CleanTarget, decisions: Sequence[RetentionDecision]
) -> None:
    """Carry out the decisions of the rules about one domain."""
    group = target.group_of(decisions[0].found.definition.domain_name) or ""
    stopped = stop_of(cleaning.runtime.config, group, decisions)
    if stopped is not None:
        cleaning.emit(stopped)
    await _carry_out(cleaning, target, decisions)


def _decisions(cleaning: Cleaning, target: CleanTarget, scan: Scan) -> list[RetentionDecision]:
    drop_damaged = cleaning.request.drop_damaged
    return list(plan_clean(target, scan, cleaning.now, drop_damaged=drop_damaged))


def _damage_warnings(decisions: Sequence[RetentionDecision], word: str) -> Iterator[events.Warned]:
    """Warn of a guest's damaged backups, and say so if none is good; ``word`` means it."""
    damaged = sum(decision.found.definition.is_damaged for decision in decisions)
    if damaged:
        message = f"verify found {damaged} of its {len(decisions)} backups damaged"
        left = "no rule counts a damaged one" if damaged < len(decisions) else "NONE IS GOOD"
        yield events.Warned(f"{message}; {left}", word)


async def _carry_out(
    cleaning: Cleaning, target: CleanTarget, decisions: Sequence[RetentionDecision]
) -> None:
    """Report decisions on one guest's backups, and remove those that go, if this is no dry run."""
    domain = decisions[0].found.definition.domain_name
    group = target.group_of(domain) or ""
    forgetting = Forgetting(cleaning.runtime.host, target.catalog.target, cleaning.emit)
    for decision, verdict in zip(decisions, await verdicts_on(group, decisions), strict=True):
        cleaning.emit(verdict)
        if not decision.keep and not cleaning.request.dry_run:
            lock_wait = cleaning.lock_wait(domain)
            name, uuid = verdict.backup, verdict.uuid
            forget = partial(forgetting.forget, domain, name)
            removal = remove_backup(target.catalog, decision.found, lock_wait, forget)
            await report_removal(cleaning.emit, group, domain, name, removal, uuid=uuid)

"""The ``repair`` command: repair a repository as far as possible, and report what is lost.

::

    identity            rebuild the file `repository` from the headers of the packs
    reindex             add chunks that packs hold and the index does not know
    verify              every chunk of the index, every backup of the target
    drop                remove damaged chunks from the index, so that the next backup stores them
    record              the remaining damage, so that the prune can continue

It holds the prune's lease from beginning to end; backups and restores continue in the meantime. It
is safe to run twice, and to kill at any moment.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from anyio import from_thread, to_thread
from msgspec import Struct

from virtbackup_async import events
from virtbackup_async.engine.clean.plan import CleanTarget, clean_targets
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.engine.verify.chunks import open_check
from virtbackup_async.engine.verify.repository import verify_opened
from virtbackup_async.engine.verify.results import Results, SelectedBackup
from virtbackup_async.errors import NewerVersionError, NotFoundError, VirtBackupError
from virtbackup_async.model.packager import type_of
from virtbackup_async.packagers.repository.map_files import list_maps
from virtbackup_async.repository import (
    Repository,
    drop_bad_entries,
    drop_damaged_pending_deletion,
    note_known_damage,
    open_leased,
    reindex_packs,
    repair_heads,
    repair_repository_file,
    take_prune_lease,
)

T = TypeVar("T")


class RepairRequest(Struct, frozen=True):
    """What to repair.

    Attributes:
        groups: the groups of the targets; none for all that have one. All backups of a target are
            verified, of whichever group: they share the repository.
        quick: trust every chunk that is there, without reading it.
    """

    groups: Sequence[str] = ()
    quick: bool = False


class RepairRun(Struct, frozen=True):
    """The repairs of a run, and which backups of the repositories are good or damaged."""

    repositories: tuple[events.RepositoryRepaired, ...]
    good: tuple[events.VerifyDone, ...]
    damaged: tuple[events.VerifyFailed, ...]


async def run_repair(runtime: Runtime, request: RepairRequest) -> RepairRun:
    """Repair the repositories of groups' targets.

    Emits a ``VerifyDone`` or a ``VerifyFailed`` for each backup in them.

    Raises:
        NotFoundError: a named group does not exist, or there is no repository.
        LockHeldError: a prune or another repair is running.
        NewerVersionError: a newer program wrote a part of it, which stays as it is.
        ForeignRepositoryError: a part belongs to another repository, and stays as it is.
        CorruptError: something cannot be repaired, and an admin must decide first.
        StorageError: a target cannot be read or written. The others were repaired anyway.
    """
    runtime, recording = runtime.recording(
        events.RepositoryRepaired, events.VerifyDone, events.VerifyFailed
    )
    await _repair(runtime, request)
    return RepairRun(
        recording.of(events.RepositoryRepaired),
        recording.of(events.VerifyDone),
        recording.of(events.VerifyFailed),
    )


async def _repair(runtime: Runtime, request: RepairRequest) -> None:
    emit, now = runtime.emit, runtime.now()
    targets = await to_thread.run_sync(clean_targets, runtime.config, request.groups)
    emit(events.RunStarted("repair", ()))
    failures: list[VirtBackupError] = []
    found = False
    for target in targets:
        try:
            found |= await _Repair(target, Results(now, request.quick, emit)).run()
        except VirtBackupError as error:
            failures.append(error)
    for failure in failures[1:]:
        emit(events.Warned(str(failure)))
    if failures:
        raise failures[0]
    if not found:
        where = ", ".join(str(target.catalog.target) for target in targets)
        raise NotFoundError(f"there is no repository to repair: {where}")


class _Repair:
    """The repair of one target."""

    def __init__(self, target: CleanTarget, results: Results) -> None:
        self._target = target
        self._location = target.catalog.target
        self._results = results
        self._emit = results.emit

    async def run(self) -> bool:
        """Repair it; return whether there is a repository."""
        repository = await to_thread.run_sync(repair_repository_file, self._location)
        if repository is None:
            # Either the target has no repository, or the target itself is missing.
            await self._target.catalog.scan()
            return False
        take_lease = partial(take_prune_lease, repository.storage)
        async with open_leased(take_lease, f"refresh {repository.where}") as lease:
            await self._repair(repository)
            await to_thread.run_sync(lease.check)
        return True

    async def _repair(self, repository: Repository) -> None:
        await to_thread.run_sync(drop_damaged_pending_deletion, repository)
        indexed, removed = await _stepwise(partial(reindex_packs, repository))
        async with open_check(repository, self._emit) as opened:
            checking = opened.checking
            checking.need_all()
            await verify_opened(repository, opened, await self._backups(), self._results)
            if checking.newer_pack is not None:
                raise NewerVersionError(checking.newer_pack)
            heads = await to_thread.run_sync(repair_heads, repository, checking)
            dropped, left = await to_thread.run_sync(drop_bad_entries, repository, checking)
        maps = partial(list_maps, repository.storage)
        waiting = await _stepwise(partial(note_known_damage, repository, maps))
        self._emit(
            events.RepositoryRepaired(
                target=str(self._location),
                dropped_chunks=dropped,
                left_chunks=left,
                indexed_chunks=indexed,
                removed_segments=removed,
                mended_heads=heads,
                waiting_maps=waiting,
            )
        )

    async def _backups(self) -> list[SelectedBackup]:
        scan = await self._target.catalog.scan()
        return [
            SelectedBackup(self._target.group_of(found.definition.domain_name) or "", found)
            for found in scan.complete
            if type_of(found.definition.packager).uses_repository
        ]


async def _stepwise(work: Callable[[Callable[[], None]], T]) -> T:
    """Run a function in a thread; it can be cancelled at each of its steps."""
    return await to_thread.run_sync(work, from_thread.check_cancelled)

"""Checks the chunks of a repository with all processors, and reports the progress.

Called by ``verify`` for the chunks of some backups, and by ``repair`` for all of them.
"""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from threading import Lock

from anyio import create_task_group, from_thread, to_thread

from virtbackup_async.engine.outcome import most_severe
from virtbackup_async.events import Emit, RepositoryDamaged, RepositoryProgress, Warned
from virtbackup_async.repository import Check, CheckSession, Repository, open_leased

MAX_TOLD_PACKS = 100


@asynccontextmanager
async def open_check(
    repository: Repository, emit: Emit, reads: Sequence[str] = ()
) -> AsyncIterator[CheckSession]:
    """Open a repository for a check, and report which of its small files are damaged.

    Args:
        repository: to check.
        emit: where events go.
        reads: the first file of each package that must not be removed meanwhile.

    Raises:
        StorageError: the index cannot be listed.
    """
    session = open_leased(partial(CheckSession, repository, reads), f"refresh {repository.where}")
    async with session as opened:
        if opened.lease_error is not None:
            emit(Warned(f"a prune may disturb this: {opened.lease_error.message}"))
        for problem in opened.problems:
            emit(RepositoryDamaged(repository.target, problem.message, 0))
        yield opened


async def check_chunks(opened: CheckSession, *, quick: bool, emit: Emit) -> int:
    """Check the needed chunks, and report the damaged packs.

    Args:
        opened: its ``checking`` knows the needed chunks.
        quick: only look whether it is there.
        emit: where events go.

    Returns:
        How many bytes of chunks there were.

    Raises:
        StorageError: packs cannot be read now: nothing is known of them.
    """
    checking, target = opened.checking, opened.repository.target
    total_bytes = await to_thread.run_sync(checking.look_at_packs, from_thread.check_cancelled)
    if not quick:
        reading = _Reading(checking, total_bytes, target, emit)
        await reading.read()
    _tell_damage(checking, target, emit)
    return total_bytes


class _Reading:
    """Threads that each take one run after the other."""

    def __init__(self, checking: Check, total_bytes: int, target: str, emit: Emit) -> None:
        self._checking = checking
        self._runs = checking.runs(from_thread.check_cancelled)
        self._turn = Lock()
        self._total_bytes = total_bytes
        self._done_bytes = 0
        self._target = target
        self._emit = emit

    async def read(self) -> None:
        try:
            async with create_task_group() as threads:
                for number in range(os.cpu_count() or 1):
                    threads.start_soon(self._work, name=f"check {self._target} {number}")
        except BaseExceptionGroup as group:
            error = most_severe(group)
            if error is None:
                raise
            raise error from group

    async def _work(self) -> None:
        while (checked_bytes := await to_thread.run_sync(self._step)) is not None:
            self._done_bytes += checked_bytes
            self._emit(RepositoryProgress(self._target, self._done_bytes, self._total_bytes))

    def _step(self) -> int | None:
        with self._turn:
            run = next(self._runs, None)
        return None if run is None else self._checking.check(run)


def _tell_damage(checking: Check, target: str, emit: Emit) -> None:
    damage = [checking.damage[pack] for pack in sorted(checking.damage)]
    for pack in damage[:MAX_TOLD_PACKS]:
        emit(RepositoryDamaged(target, pack.error, pack.chunks))
    if rest := damage[MAX_TOLD_PACKS:]:
        chunks = sum(pack.chunks for pack in rest)
        emit(RepositoryDamaged(target, f"{len(rest)} more packs are damaged", chunks))

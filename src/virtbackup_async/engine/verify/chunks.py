"""Checks the chunks of a repository with all processors, and reports the progress.

Called by ``verify`` for the chunks of some backups, and by ``repair`` for all of them.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from threading import Lock

from anyio import create_task_group, from_thread, to_thread
from msgspec import Struct

from virtbackup_async.engine.outcome import most_severe
from virtbackup_async.engine.verify.results import Amount
from virtbackup_async.events import Emit, RepositoryDamaged, RepositoryProgress, Warned
from virtbackup_async.model.read_share import Drawing, ReadShare
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


class Wanted(Struct, frozen=True):
    """How chunks are checked.

    Attributes:
        share: how much is read; None for nothing.
        lists: whether packs of which not all is read are only listed, not opened: to a store, that
            is a thousandth of the requests.
    """

    share: ReadShare | None
    lists: bool = False


class CheckedChunks(Struct, frozen=True):
    """What became of the needed chunks.

    Attributes:
        stored_bytes: how many bytes of packs they take.
        checked_bytes: how many of these were read; the others are there, as far as lengths show.
        checked_chunks: how many chunks that were.
    """

    stored_bytes: int
    checked_bytes: int = 0
    checked_chunks: int = 0

    @property
    def amount(self) -> Amount:
        """How much of them was read."""
        if self.checked_bytes >= self.stored_bytes:
            return Amount.ALL
        return Amount.SOME if self.checked_bytes else Amount.NOTHING


async def check_chunks(opened: CheckSession, wanted: Wanted, emit: Emit) -> CheckedChunks:
    """Check the needed chunks, and report the damaged packs.

    Args:
        opened: its ``checking`` knows the needed chunks.
        wanted: how they are checked.
        emit: where events go.

    Raises:
        StorageError: packs cannot be read now: nothing is known of them.
    """
    checking, target, share = opened.checking, opened.repository.target, wanted.share
    lengths_only = wanted.lists and (share is None or not share.is_all)
    on_step = from_thread.check_cancelled
    look = partial(checking.look_at_packs, on_step, lengths_only=lengths_only)
    total_bytes = await to_thread.run_sync(look)
    checked = CheckedChunks(total_bytes)
    if share is not None:
        reading = _Reading(checking, share, total_bytes, target, emit)
        checked = await reading.read()
    _tell_damage(checking, target, emit)
    return checked


class _Reading:
    """Threads that each take one run after the other."""

    def __init__(
        self, checking: Check, share: ReadShare, total_bytes: int, target: str, emit: Emit
    ) -> None:
        self._checking = checking
        self._runs = checking.runs(from_thread.check_cancelled)
        self._drawing = Drawing(share, total_bytes)
        self._turn = Lock()
        self._stored_bytes = total_bytes
        self._total_bytes = share.budget(total_bytes)
        self._done_bytes = 0
        self._read_chunks = 0
        self._target = target
        self._emit = emit

    async def read(self) -> CheckedChunks:
        try:
            async with create_task_group() as threads:
                for number in range(self._checking.runs_at_once):
                    threads.start_soon(self._work, name=f"check {self._target} {number}")
        except BaseExceptionGroup as group:
            error = most_severe(group)
            if error is None:
                raise
            raise error from group
        return CheckedChunks(self._stored_bytes, self._done_bytes, self._read_chunks)

    async def _work(self) -> None:
        while (checked_bytes := await to_thread.run_sync(self._step)) is not None:
            self._done_bytes += checked_bytes
            total_bytes = max(self._total_bytes, self._done_bytes)
            self._emit(RepositoryProgress(self._target, self._done_bytes, total_bytes))

    def _step(self) -> int | None:
        with self._turn:
            run = next((run for run in self._runs if self._drawing.draws(run.data_bytes)), None)
            self._read_chunks += 0 if run is None else len(run.places)
        return None if run is None else self._checking.check(run)


def _tell_damage(checking: Check, target: str, emit: Emit) -> None:
    damage = [checking.damage[pack] for pack in sorted(checking.damage)]
    for pack in damage[:MAX_TOLD_PACKS]:
        emit(RepositoryDamaged(target, pack.error, pack.chunks))
    if rest := damage[MAX_TOLD_PACKS:]:
        chunks = sum(pack.chunks for pack in rest)
        emit(RepositoryDamaged(target, f"{len(rest)} more packs are damaged", chunks))

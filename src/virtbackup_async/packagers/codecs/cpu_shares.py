"""How everything that compresses at one time shares the processors, and the memory it needs.

Made once by the command and handed to every package that is written. Invariants: only one thread
more compresses in the process than there are processors, and what is in flight does not grow with
the number of disks beyond one segment for each of them.
"""

import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import Final, TypeVar

from anyio import CapacityLimiter, Semaphore, to_thread

from virtbackup_async.packagers.zstd.runs import RunCompressors

_MOST_THREADS: Final = 64
# More of them than threads, because some always wait for their disk.
_SHARERS_PER_THREAD: Final = 2
_FEWEST_SHARERS: Final = 4
# Fewer than anyio has threads: those that wait for what others store must leave some to these.
_MOST_BATCHES: Final = 16

_Result = TypeVar("_Result")


class CpuShares:
    """The processors of the machine, or ``threads`` of them."""

    def __init__(self, threads: int | None = None) -> None:
        self._threads = min(_MOST_THREADS, threads or os.cpu_count() or 1)
        self._sharers = 0
        self._places = Semaphore(max(_FEWEST_SHARERS, _SHARERS_PER_THREAD * self._threads))
        self._spares_taken = 0
        # One more: each waits now and then, for the interpreter or a thread of its library.
        self._at_once: Final = self._threads + 1
        self._turns = threading.BoundedSemaphore(self._at_once)
        self._long_turns = threading.BoundedSemaphore(self._threads)
        # As many again stand ready in their threads: whose turn comes then begins at once, also
        # while the event loop, which would have to start him, does something else.
        self._threads_for_it = CapacityLimiter(2 * self._at_once)
        # What is compressed, and as much that is not yet on the disk.
        self.batches: Final = Semaphore(min(_MOST_BATCHES, 2 * self._threads + 1))
        self.run_compressors: Final = RunCompressors()

    @property
    def is_at_rest(self) -> bool:
        """Whether nobody compresses, or is about to."""
        return self._threads_for_it.borrowed_tokens == 0

    async def run(self, work: Callable[[], _Result], *, is_long: bool = False) -> _Result:
        """Run blocking work that takes a processor, in its turn; a cancellation waits for it.

        Args:
            work: what is to be done.
            is_long: it does not wait for anything meanwhile, and has megabytes that it goes through
                again and again: no more of such than there are processors, or they would push each
                other's out of the caches.
        """
        in_turn = partial(self._in_turn, work, is_long=is_long)
        return await to_thread.run_sync(in_turn, limiter=self._threads_for_it)

    @property
    def most_segments(self) -> int:
        """How many segments one compressor can have: its own and all the spare ones."""
        return self._at_once + 1

    @asynccontextmanager
    async def taking_part(self) -> AsyncIterator[None]:
        """Count as one who shares, while the block runs; wait if there are enough of them.

        Each one has some MiB of its own in memory. Who waits must hold no buffers.
        """
        async with self._places:
            self._sharers += 1
            try:
                yield
            finally:
                self._sharers -= 1

    def take_segment(self) -> bool:
        """Take one of the spare segments if there is any; nobody may wait for one.

        Whoever compresses has a segment of his own that he need not ask for. So he always gets on,
        and with him the disk whose buffers others may be waiting for. Where the own ones are enough
        to keep all threads at work, none is spare.
        """
        most = self._at_once + 1 - max(1, self._sharers)
        if self._spares_taken >= most:
            return False
        self._spares_taken += 1
        return True

    def give_segment_back(self) -> None:
        """Give back what ``take_segment`` took."""
        self._spares_taken -= 1

    def _in_turn(self, work: Callable[[], _Result], *, is_long: bool) -> _Result:
        with self._long_turns if is_long else nullcontext(), self._turns:
            return work()

"""How all packages that are written at the same time share the processors, and memory.

A command creates one ``CpuShares`` and passes it to every package. Invariants: the process has at
most one compressing thread more than processors. Segments in flight do not grow with the number of
disks, beyond one for each disk.
"""

import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import Any, Final, TypeVar

from anyio import CapacityLimiter, Semaphore, to_thread

_MOST_THREADS: Final = 64
# More than threads, because some of them always wait for their disk.
_SHARERS_PER_THREAD: Final = 2
_FEWEST_SHARERS: Final = 4

_Result = TypeVar("_Result")


class CpuShares:
    """The processors of the machine, or ``threads`` of them."""

    def __init__(self, threads: int | None = None) -> None:
        self.threads: Final = min(_MOST_THREADS, threads or os.cpu_count() or 1)
        self._sharers = 0
        self._places = Semaphore(max(_FEWEST_SHARERS, _SHARERS_PER_THREAD * self.threads))
        self._spares_taken = 0
        # One more: each sometimes waits for the interpreter, or for a thread of its library.
        self._at_once: Final = self.threads + 1
        self._turns = threading.BoundedSemaphore(self._at_once)
        self._long_turns = threading.BoundedSemaphore(self.threads)
        # As many again wait in their threads, so the next one starts at once, even while the event
        # loop, which would otherwise have to start it, does something else.
        self._threads_for_it = CapacityLimiter(2 * self._at_once)
        self._shared: Final[dict[Callable[[CpuShares], object], Any]] = {}

    @property
    def is_at_rest(self) -> bool:
        """Whether no thread compresses or is about to."""
        return self._threads_for_it.borrowed_tokens == 0

    def shared(self, make: Callable[["CpuShares"], _Result]) -> _Result:
        """Return the one object that ``make`` makes for all users of these shares.

        A packager shares its own limits and caches in this way, and they end with the command. Call
        it only in the event loop.
        """
        if make not in self._shared:
            self._shared[make] = make(self)
        found: _Result = self._shared[make]
        return found

    async def run(self, work: Callable[[], _Result], *, is_long: bool = False) -> _Result:
        """Run blocking work that needs a processor, when its turn comes; a cancellation waits.

        Args:
            work: the work.
            is_long: whether it waits for nothing, and reads the same megabytes again and again.
                At most as many of these as processors run at once, or they would evict each
                other's data from the caches.
        """
        in_turn = partial(self._in_turn, work, is_long=is_long)
        return await to_thread.run_sync(in_turn, limiter=self._threads_for_it)

    @property
    def most_segments(self) -> int:
        """How many segments one compressor can have: its own one and all spare ones."""
        return self._at_once + 1

    @asynccontextmanager
    async def taking_part(self) -> AsyncIterator[None]:
        """Count as a user of the shares while the block runs; wait if there are enough of them.

        Each user has some MiB of its own in memory. A caller that waits must hold no buffers.
        """
        async with self._places:
            self._sharers += 1
            try:
                yield
            finally:
                self._sharers -= 1

    def take_segment(self) -> bool:
        """Take a spare segment and return True, if there is one; no caller waits for one.

        Each compressor has a segment of its own, so it always makes progress, and releases the
        buffers that others may be waiting for. If these segments keep all threads busy, there are
        no spare ones.
        """
        most = self._at_once + 1 - max(1, self._sharers)
        if self._spares_taken >= most:
            return False
        self._spares_taken += 1
        return True

    def give_segment_back(self) -> None:
        """Return a segment that ``take_segment`` gave."""
        self._spares_taken -= 1

    def _in_turn(self, work: Callable[[], _Result], *, is_long: bool) -> _Result:
        with self._long_turns if is_long else nullcontext(), self._turns:
            return work()

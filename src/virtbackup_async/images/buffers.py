"""The memory that disk data passes through: one pool, with one budget, for all copies together.

A command creates one pool, which all its streams use. Invariant: no more buffers are in use than
the budget allows. So memory does not grow with the number of disks, or with a slow target. No task
waits for a second buffer while it holds one that only it can release: otherwise many copies could
wait for each other for ever.
"""

import mmap
from threading import Lock
from typing import Final

from anyio import Semaphore

MIB: Final = 1024 * 1024
# Small reads that bypass the page cache are slow, and each hop to a worker thread costs as much as
# hashing a hundred KiB; docs/explanation/performance.md has the figures.
BUFFER_BYTES: Final = 4 * MIB
DEFAULT_BUDGET_BYTES: Final = 64 * MIB


class Room:
    """Memory for what is read ahead of the buffers: all images that are read share it evenly.

    Any thread may use it.
    """

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._sharers = 0
        self._turn = Lock()

    @property
    def share_bytes(self) -> int:
        """How many bytes each of those may use that have entered."""
        return self._budget_bytes // max(1, self._sharers)

    def enter(self) -> None:
        """Count as a user of the room, until ``leave`` is called."""
        with self._turn:
            self._sharers += 1

    def leave(self) -> None:
        """Count no longer."""
        with self._turn:
            self._sharers -= 1


class BufferPool:
    """Buffers of ``BUFFER_BYTES`` each, which are reused.

    There are as many as fit into ``budget_bytes``, and at least one. They are separate pages,
    outside malloc's arenas: direct I/O needs aligned memory, and the pool's size is all that is
    used.

    Attributes:
        room: as much again, for what is read from another machine before there is a buffer for it.
    """

    def __init__(self, budget_bytes: int = DEFAULT_BUDGET_BYTES) -> None:
        self.room = Room(budget_bytes)
        self._permits = Semaphore(max(1, budget_bytes // BUFFER_BYTES))
        self._free: list[memoryview] = []

    @property
    def available(self) -> int:
        """How many buffers can be acquired now without waiting."""
        return self._permits.value

    async def acquire(self) -> memoryview:
        """Return a buffer with undefined content, as soon as one is free."""
        await self._permits.acquire()
        return self._free.pop() if self._free else _new_buffer()

    def release(self, buffer: memoryview) -> None:
        """Return a buffer to the pool; no view of it can be used any more."""
        self._free.append(buffer)
        self._permits.release()


def _new_buffer() -> memoryview:
    return memoryview(mmap.mmap(-1, BUFFER_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))

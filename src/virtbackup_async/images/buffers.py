"""The memory that disk data passes through: one pool, with one budget, for all copies at once.

Made once by the command and handed to every stream. Invariant: no more buffers are out than the
budget allows, so memory does not grow with the number of disks or with a slow target. Nobody may
wait for a second buffer while holding one that only he can give back: that is what keeps many
copies on few buffers from waiting for each other for ever.
"""

import mmap
from typing import Final

from anyio import Semaphore

CHUNK_BYTES: Final = 1024 * 1024
# Reads past the page cache are slow if they are small, and each step through a worker thread costs
# what hashing a hundred KiB does; docs/explanation/performance.md has the figures.
BUFFER_BYTES: Final = 4 * CHUNK_BYTES
DEFAULT_BUDGET_BYTES: Final = 64 * CHUNK_BYTES


class BufferPool:
    """Buffers of ``BUFFER_BYTES`` each, used again and again.

    There are as many as fit into ``budget_bytes``, but never less than one. They are pages of their
    own, outside of malloc's arenas: reads that go past the page cache need such, and what is
    reserved here is all that is used.
    """

    def __init__(self, budget_bytes: int = DEFAULT_BUDGET_BYTES) -> None:
        self._permits = Semaphore(max(1, budget_bytes // BUFFER_BYTES))
        self._free: list[memoryview] = []

    @property
    def available(self) -> int:
        """How many buffers could be had now without waiting."""
        return self._permits.value

    async def acquire(self) -> memoryview:
        """A buffer with undefined content, as soon as there is one."""
        await self._permits.acquire()
        return self._free.pop() if self._free else _new_buffer()

    def release(self, buffer: memoryview) -> None:
        """Give a buffer back; views of it must not be used any more."""
        self._free.append(buffer)
        self._permits.release()


def _new_buffer() -> memoryview:
    return memoryview(mmap.mmap(-1, BUFFER_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))

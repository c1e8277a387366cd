"""The memory that disk data passes through: one pool, with one budget, for all copies at once.

Made once by the command and handed to every stream. Invariant: no more buffers are out than the
budget allows, so memory does not grow with the number of disks or with a slow target. Nobody may
wait for a second buffer while holding one that only he can give back: that is what keeps many
copies on few buffers from waiting for each other for ever.
"""

from typing import Final

from anyio import Semaphore

CHUNK_BYTES: Final = 1024 * 1024
DEFAULT_BUDGET_BYTES: Final = 64 * CHUNK_BYTES


class BufferPool:
    """Buffers of ``CHUNK_BYTES`` each, used again and again; at most ``budget_bytes`` in all."""

    def __init__(self, budget_bytes: int = DEFAULT_BUDGET_BYTES) -> None:
        self._permits = Semaphore(max(1, budget_bytes // CHUNK_BYTES))
        self._free: list[bytearray] = []

    @property
    def available(self) -> int:
        """How many buffers could be had now without waiting."""
        return self._permits.value

    async def acquire(self) -> bytearray:
        """A buffer with undefined content, as soon as there is one."""
        await self._permits.acquire()
        return self._free.pop() if self._free else bytearray(CHUNK_BYTES)

    def release(self, buffer: bytearray) -> None:
        """Give a buffer back; views of it must not be used any more."""
        self._free.append(buffer)
        self._permits.release()

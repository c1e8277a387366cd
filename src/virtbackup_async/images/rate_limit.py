"""How fast images are read: so many bytes a second, shared by all disks that are copied at once.

::

    time     ----|====A====|====B====|====A====|====C====|-->     A, B, C: disks, as they ask
                 now, or where the last one ends

Each taker gets the next piece of time on the line, as long as its bytes need at the limit, and
waits for its end. Who asks again stands behind all who asked before, so disks share evenly. Used by
``stream.py`` before it reads; the engine makes one for the whole run and one for each group.
"""

from collections.abc import Awaitable, Callable, Sequence

import anyio


class RateLimit:
    """A line of time; unused time is lost, so that a pause is not followed by a flood."""

    def __init__(
        self, bytes_per_s: int, *, clock: Callable[[], float] = anyio.current_time
    ) -> None:
        self._bytes_per_s = bytes_per_s
        self._clock = clock
        self._taken_until_s = 0.0

    def reserve(self, length_bytes: int) -> float:
        """Take time on the line; give the seconds to wait for its end."""
        now_s = self._clock()
        self._taken_until_s = max(self._taken_until_s, now_s) + length_bytes / self._bytes_per_s
        return self._taken_until_s - now_s


async def keep_to(
    limits: Sequence[RateLimit],
    length_bytes: int,
    *,
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
) -> None:
    """Wait until ``length_bytes`` may be read by all the limits."""
    if limits:
        await sleep(max(limit.reserve(length_bytes) for limit in limits))

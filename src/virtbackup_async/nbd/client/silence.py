"""A deadline for a server that owes a reply: it limits the silence, not the work.

A server can take long as long as it sends bytes, or accepts those that are written to it.
Invariant: there is at most one timer. It checks when the time could be over, and costs requests
nothing.
"""

import asyncio
from collections.abc import Callable


class Silence:
    """Measures for how long a server that owes a reply has moved no byte.

    Args:
        limit_s: the longest silence.
        taken_bytes: returns how many of the queued bytes the server has taken so far.
        expired: called when the silence is too long, at most once for each ``begin``.
    """

    def __init__(
        self, limit_s: float, taken_bytes: Callable[[], int], expired: Callable[[], None]
    ) -> None:
        self._limit_s = limit_s
        self._taken_bytes = taken_bytes
        self._expired = expired
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._is_owed = False
        self._moved_s = 0.0
        self._taken = 0

    def begin(self) -> None:
        """Record that the server owes a reply from now on."""
        self._is_owed = True
        self._moved_s = self._loop.time()
        self._taken = self._taken_bytes()
        if self._timer is None:
            self._arm()

    def heard(self) -> None:
        """Record that bytes came."""
        self._moved_s = self._loop.time()

    def end(self) -> None:
        """Record that the server owes no reply any more."""
        self._is_owed = False

    def stop(self) -> None:
        """Stop measuring."""
        self._is_owed = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        self._timer = self._loop.call_at(self._moved_s + self._limit_s, self._look)

    def _look(self) -> None:
        self._timer = None
        if not self._is_owed:
            return
        taken = self._taken_bytes()
        if taken != self._taken:
            self._taken = taken
            self._moved_s = self._loop.time()
        if self._loop.time() < self._moved_s + self._limit_s:
            self._arm()
        else:
            self._is_owed = False
            self._expired()

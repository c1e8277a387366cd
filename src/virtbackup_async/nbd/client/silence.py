"""A deadline for a server that owes an answer and is silent: on its silence, not on its work.

A server may take long, as long as bytes come from it, or it takes what is written to it. Invariant:
one timer at the most; it looks when the time could be over, and no request pays for it.
"""

import asyncio
from collections.abc import Callable


class Silence:
    """How long a server has moved no byte, though it owes an answer.

    Args:
        limit_s: how long it may.
        taken_bytes: tells how much it has taken so far of what could not be sent at once.
        expired: called, once for each time that an answer is owed, when it was silent for too long.
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
        """Take note that an answer is owed from now on."""
        self._is_owed = True
        self._moved_s = self._loop.time()
        self._taken = self._taken_bytes()
        if self._timer is None:
            self._arm()

    def heard(self) -> None:
        """Take note that bytes came."""
        self._moved_s = self._loop.time()

    def end(self) -> None:
        """Take note that no answer is owed any more."""
        self._is_owed = False

    def stop(self) -> None:
        """Look no more."""
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

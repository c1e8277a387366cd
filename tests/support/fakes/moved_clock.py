"""The event loop's clock, moved by hand: deadlines pass without anybody waiting for them."""

import asyncio
from contextlib import contextmanager


class MovedClock:
    """How far the loop's clock is ahead of the real one."""

    def __init__(self):
        self.ahead_s = 0.0

    def move(self, seconds):
        """Let all deadlines of so many seconds pass as soon as the loop looks again."""
        self.ahead_s += seconds


@contextmanager
def moved_clock(monkeypatch):
    """Take the running loop's clock into the hand, and put it back at the end."""
    loop, clock = asyncio.get_running_loop(), MovedClock()
    real = loop.time
    with monkeypatch.context() as patch:
        patch.setattr(loop, "time", lambda: real() + clock.ahead_s)
        yield clock

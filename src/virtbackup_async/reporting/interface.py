"""The interface of renderers. Only ``reporting.event_thread`` calls one, from a single thread.

A renderer reads no clock: each call has the time that it needs, so a recorded run always renders
the same.
"""

from datetime import datetime
from typing import Protocol

from msgspec import Struct

from virtbackup_async.events import Event


class Moment(Struct, frozen=True):
    """A moment on two clocks: wall time with its offset, and a clock that never jumps."""

    wall: datetime
    monotonic_s: float


class LogLine(Struct, frozen=True):
    """A line of the log; ``level`` is the ``logging`` module's number."""

    level: int
    text: str


class Renderer(Protocol):
    """Shows a run. It may block and raise OSError: the thread shields the run from both."""

    def show(self, event: Event, at: Moment) -> None:
        """Show one event. After a ``Summary`` nothing but ``close`` is called."""

    def log(self, line: LogLine, at: Moment) -> None:
        """Show one line of the log."""

    def tick(self, at: Moment) -> None:
        """Redraw what moves; called about ten times a second, even if nothing happened."""

    def pause(self) -> None:
        """Leave the terminal as it was found; the next ``tick`` draws again."""

    def close(self) -> None:
        """Leave the terminal as it was found. May be called twice."""

"""What a renderer is. Only ``reporting.event_thread`` drives one, from a single thread.

A renderer reads no clock: every moment it needs comes with what it is shown, so a recorded run
renders the same for ever.
"""

from datetime import datetime
from typing import Protocol

from msgspec import Struct

from virtbackup_async.events import Event


class Moment(Struct, frozen=True):
    """One moment on two clocks: the wall's, with its offset, and one that never jumps."""

    wall: datetime
    monotonic_s: float


class LogLine(Struct, frozen=True):
    """A line of the log; ``level`` is the ``logging`` module's number."""

    level: int
    text: str


class Renderer(Protocol):
    """Shows a run. May block and may raise OSError: the thread keeps both away from the run."""

    def show(self, event: Event, at: Moment) -> None:
        """Show one event. After a ``Summary`` nothing but ``close`` is called."""

    def log(self, line: LogLine, at: Moment) -> None:
        """Show one line of the log."""

    def tick(self, at: Moment) -> None:
        """Redraw what moves; called about ten times a second, also when nothing happened."""

    def pause(self) -> None:
        """Leave the terminal as it was found; the next ``tick`` goes on."""

    def close(self) -> None:
        """Leave the terminal as it was found. May be called twice."""

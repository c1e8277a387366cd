"""What a renderer is. ``cli.pump`` drives one, from a single thread; nothing else calls it.

A renderer reads no clock: every moment it needs comes with what it is shown, so a recorded run
renders the same for ever.
"""

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from virtbackup_async.events import Event, Summary

if TYPE_CHECKING:
    from rich.console import Console


class Moment(Struct, frozen=True):
    """One moment on two clocks: the wall's, with its offset, and one that never jumps."""

    wall: datetime
    monotonic_s: float


class LogLine(Struct, frozen=True):
    """A line of the log; ``level`` is the ``logging`` module's number."""

    level: int
    text: str


class Renderer(Protocol):
    """Shows a run. May block and may raise OSError: the pump keeps both away from the run."""

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


class Report(Protocol):
    """What a command came to, in text: collected event by event, printed once at the end."""

    def add(self, event: Event) -> None:
        """Remember the event if it belongs to the result."""

    def print(self, console: "Console", summary: Summary) -> None:
        """Print the result."""


MakeReport = Callable[[], Report]


def report_event(report: Report | None, out: "Console", event: Event) -> None:
    """Feed a report, where there is one, and have it printed when the summary comes."""
    if report is None:
        return
    report.add(event)
    if isinstance(event, Summary):
        report.print(out, event)

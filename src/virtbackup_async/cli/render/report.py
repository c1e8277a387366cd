"""What a report is: what a command came to, in text, printed once at the end."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from virtbackup_async.events import Event, Summary

if TYPE_CHECKING:
    from rich.console import Console


class Report(Protocol):
    """Collects a command's result event by event, and prints it at the end."""

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

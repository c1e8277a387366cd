"""A line for each event on stderr, for logs, pipes and terminals that cannot redraw.

``Plain`` reports everything that happens, ``Quiet`` (``-q``) only warnings and failures.
"""

from typing import TextIO

from rich.console import Console

from virtbackup_async import events
from virtbackup_async.cli.render.reports import Report, report_event
from virtbackup_async.model.amounts import size
from virtbackup_async.reporting.interface import LogLine, Moment
from virtbackup_async.reporting.sentences import in_words
from virtbackup_async.reporting.text import level_name, percent, printable

_STEP_PERCENT = 10
_STEPS = 10


class Lines:
    """Writes lines that begin with the time of day, without control characters."""

    def __init__(self, err: TextIO) -> None:
        self._err = err

    def write(self, text: str, at: Moment) -> None:
        self._err.write(f"{at.wall:%H:%M:%S} {printable(text)}\n")
        self._err.flush()


class Plain:
    """Prints every event that has a sentence, and progress in steps of ten per cent."""

    def __init__(
        self, out: Console, err: TextIO, report: Report | None, *, progress: bool, phases: bool
    ) -> None:
        self._out = out
        self._report = report
        self._lines = Lines(err)
        self._progress = progress
        self._phases = phases
        self._steps: dict[str, int] = {}

    def show(self, event: events.Event, at: Moment) -> None:
        if line := self._line(event):
            self._lines.write(line, at)
        report_event(self._report, self._out, event)

    def log(self, line: LogLine, at: Moment) -> None:
        self._lines.write(f"{level_name(line.level)}: {line.text}", at)

    def tick(self, at: Moment) -> None:
        """Do nothing: nothing moves between two lines."""

    def pause(self) -> None:
        """Do nothing: the terminal is as it was found."""

    def close(self) -> None:
        """Do nothing: the terminal is as it was found."""

    def _line(self, event: events.Event) -> str | None:
        if isinstance(event, events.DiskProgress | events.RepositoryProgress):
            return self._progress_line(event) if self._progress else None
        if isinstance(event, events.PhaseChanged) and not self._phases:
            return None
        return in_words(event)

    def _progress_line(self, event: events.DiskProgress | events.RepositoryProgress) -> str | None:
        """Return a line for each further ten per cent; start and end have other lines."""
        if isinstance(event, events.DiskProgress):
            key = f"{event.domain} {event.disk}"
        else:
            key = f"{event.target}: repository"
        now = percent(event.done_bytes, event.total_bytes)
        step = now // _STEP_PERCENT
        if step == self._steps.get(key) or not 0 < step < _STEPS:
            return None
        self._steps[key] = step
        moved = f"{size(event.done_bytes)} of {size(event.total_bytes)}"
        return f"{key}: {now} %, {moved}"


class Quiet:
    """Prints warnings and failures alone: a successful run prints nothing."""

    def __init__(self, out: Console, err: TextIO, report: Report | None) -> None:
        self._out = out
        self._report = report
        self._lines = Lines(err)

    def show(self, event: events.Event, at: Moment) -> None:
        wrong = (
            events.Warned | events.BackupFailed | events.HookFailed | events.VerifyFailed
            | events.RepositoryDamaged | events.PendingLeft | events.RemovalFailed
        )  # fmt: skip
        if isinstance(event, wrong) and (line := in_words(event)):
            self._lines.write(line, at)
        report_event(self._report, self._out, event)

    def log(self, line: LogLine, at: Moment) -> None:
        self._lines.write(f"{level_name(line.level)}: {line.text}", at)

    def tick(self, at: Moment) -> None:
        """Do nothing: nothing moves."""

    def pause(self) -> None:
        """Do nothing: the terminal is as it was found."""

    def close(self) -> None:
        """Do nothing: the terminal is as it was found."""

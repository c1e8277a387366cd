"""A line for each event on stderr, for logs, pipes and terminals that cannot redraw.

``Plain`` reports everything that happens, and every ten seconds how far it is; ``Quiet`` (``-q``)
only warnings and failures.
"""

from collections.abc import Iterator
from itertools import islice
from typing import TextIO

from rich.console import Console

from virtbackup_async import events
from virtbackup_async.cli.render.board import Board
from virtbackup_async.cli.render.reports import Report, report_event
from virtbackup_async.model.amounts import size
from virtbackup_async.reporting.interface import LogLine, Moment
from virtbackup_async.reporting.sentences import NAMES_SHOWN, in_words
from virtbackup_async.reporting.text import clock, level_name, printable

_INTERVAL_S = 10.0
_PERCENT = 100


class Lines:
    """Writes lines that begin with the time of day, without control characters."""

    def __init__(self, err: TextIO) -> None:
        self._err = err

    def write(self, text: str, at: Moment) -> None:
        self._err.write(f"{at.wall:%H:%M:%S} {printable(text)}\n")
        self._err.flush()


class Plain:
    """Prints every event that has a sentence, and a line of progress every ten seconds."""

    def __init__(
        self, out: Console, err: TextIO, report: Report | None, *, progress: bool, phases: bool
    ) -> None:
        self._out = out
        self._report = report
        self._lines = Lines(err)
        self._progress = progress
        self._phases = phases
        self._board = Board()
        self._told_s: float | None = None
        self._told_bytes = 0

    def show(self, event: events.Event, at: Moment) -> None:
        if not isinstance(event, events.OF_EACH_BACKUP):
            self._tell(event, at)
        report_event(self._report, self._out, event)

    def log(self, line: LogLine, at: Moment) -> None:
        self._lines.write(f"{level_name(line.level)}: {line.text}", at)

    def tick(self, at: Moment) -> None:
        """Print a line if something has moved, and the last one is ten seconds old."""
        if not self._board.rows:
            return
        if self._told_s is None:
            self._told_s = at.monotonic_s
        moved_bytes = self._board.moved_bytes
        if at.monotonic_s - self._told_s >= _INTERVAL_S and moved_bytes != self._told_bytes:
            self._told_s, self._told_bytes = at.monotonic_s, moved_bytes
            self._lines.write(", ".join(_progress(self._board, at.monotonic_s)), at)

    def pause(self) -> None:
        """Do nothing: the terminal is as it was found."""

    def close(self) -> None:
        """Do nothing: the terminal is as it was found."""

    def _tell(self, event: events.Event, at: Moment) -> None:
        if self._progress:
            self._board.apply(event, at.monotonic_s)
        if line := self._line(event):
            self._lines.write(line, at)

    def _line(self, event: events.Event) -> str | None:
        if isinstance(event, events.PhaseChanged | events.StoreRequests) and not self._phases:
            return None
        if self._report is not None and isinstance(event, self._report.says_alone):
            return None
        return in_words(event)


def _progress(board: Board, now_s: float) -> Iterator[str]:
    """Yield how far the whole is, and each work that moves."""
    whole, speed, left_s = board.whole(), board.mean_speed.bytes_per_s(now_s), board.left_s(now_s)
    yield f"progress: {int(whole.share * _PERCENT)} %"
    yield f"{size(whole.done_bytes)} of {size(whole.total_bytes)}"
    if speed:
        yield f"{size(speed)}/s"
    if left_s is not None:
        yield f"{clock(left_s)} left"
    if board.works > 1:
        yield f"{board.ended} of {board.works} done"
    moving = [work for work in board.rows.values() if work.is_moving]
    for work in islice(moving, NAMES_SHOWN):
        yield f"{work.name} {int(work.share * _PERCENT)} %"
    if len(moving) > NAMES_SHOWN:
        yield f"and {len(moving) - NAMES_SHOWN} more"


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
            | events.CopyFailed | events.CleanStopped | events.RangeUnreadable
        )  # fmt: skip
        alone = self._report.says_alone if self._report is not None else ()
        if isinstance(event, wrong) and not isinstance(event, alone) and (line := in_words(event)):
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

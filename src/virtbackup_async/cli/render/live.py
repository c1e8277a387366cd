"""The live view: a redrawn region at the bottom of the terminal, on stderr.

The region shows the whole, the failures, the active works, and what waits. Results and warnings are
printed above it, and scroll away like other lines. The region vanishes at the end; the report
follows on stdout. If both are the same terminal, the report has only what was not printed yet.
"""

import logging

from rich.console import Console
from rich.text import Text

from virtbackup_async import events
from virtbackup_async.cli.render.board import Board
from virtbackup_async.cli.render.console import BAD, FACT, GOOD, LOOK
from virtbackup_async.cli.render.drawing import Drawing
from virtbackup_async.cli.render.glyphs import glyphs_for
from virtbackup_async.cli.render.region import Region
from virtbackup_async.cli.render.reports import Report, report_event
from virtbackup_async.reporting.interface import LogLine, Moment
from virtbackup_async.reporting.sentences import in_words
from virtbackup_async.reporting.text import level_name, printable

_GOOD_ENDS = (
    events.BackupDone,
    events.RestoreDone,
    events.DiskExported,
    events.VerifyDone,
    events.CopyDone,
    events.BackupRemoved,
    events.PendingUndone,
)
_BAD_ENDS = (
    events.BackupFailed,
    events.VerifyFailed,
    events.CopyFailed,
    events.RepositoryDamaged,
    events.HookFailed,
    events.PendingLeft,
    events.RemovalFailed,
    events.CleanStopped,
)
_BEGINNINGS = (
    events.RunStarted,
    events.BackupStarted,
    events.RestoreStarted,
    events.VerifyStarted,
    events.CopyStarted,
)


class LiveView:
    """Draws on ``screen``, a terminal; prints the report on ``out`` at the end."""

    def __init__(self, out: Console, screen: Console, report: Report | None) -> None:
        self._out = out
        self._screen = screen
        self._report = report
        self._board = Board()
        self._glyphs = glyphs_for(screen)
        self._goes_on = False
        self._widest: dict[str, int] = {}
        self._region = Region(screen)

    def show(self, event: events.Event, at: Moment) -> None:
        self._board.apply(event, at.monotonic_s)
        if isinstance(event, _BEGINNINGS):
            self._region.start()
        if mark := self._mark(event):
            glyph, style = mark
            self._print(Text(f"{glyph} {printable(_words(event))}", style=style), at)
        if isinstance(event, events.Summary):
            self.close()
        report_event(self._report, self._out, event, only_rest=self._is_shared)

    def log(self, line: LogLine, at: Moment) -> None:
        style = LOOK if line.level >= logging.WARNING else FACT
        self._print(Text(f"{level_name(line.level)}: {printable(line.text)}", style=style), at)

    def tick(self, at: Moment) -> None:
        if self._goes_on:
            self._goes_on = False
            self._region.start()
        if self._region.is_started:
            size = self._screen.size
            drawing = Drawing(size.width, size.height, self._glyphs, self._widest)
            self._region.draw(drawing.lines(self._board, at.monotonic_s))

    def pause(self) -> None:
        self._goes_on = self._region.is_started
        self._region.stop()

    def close(self) -> None:
        self._goes_on = False
        self._region.stop()

    def _mark(self, event: events.Event) -> tuple[str, str] | None:
        """Return the glyph and style of an event that is printed above the region."""
        match event:
            case _ if self._is_reported(event):
                return None
            case _ if isinstance(event, _GOOD_ENDS):
                return self._glyphs.done, GOOD
            case _ if isinstance(event, _BAD_ENDS):
                return self._glyphs.failed, BAD
            case events.Warned():
                return self._glyphs.warning, LOOK
            case events.DiskSkipped():
                # The same every night for a cdrom: information, not an alarm.
                return " ", FACT
            case _:
                return None

    @property
    def _is_shared(self) -> bool:
        """Whether the report comes to this terminal: then nothing is printed twice."""
        return self._report is not None and self._out.is_terminal

    def _is_reported(self, event: events.Event) -> bool:
        """Tell whether the report will say it on this terminal; until then, a row may."""
        match event:
            case events.RestoreDone() | events.DiskExported():
                return self._is_shared
            case events.BackupFailed() | events.VerifyFailed() | events.CopyFailed():
                return self._is_shared and self._region.is_started
            case _:
                return False

    def _print(self, text: Text, at: Moment) -> None:
        # Assembled: text appended to a dim text becomes dim, whatever its own style.
        self._region.print(Text.assemble((f"{at.wall:%H:%M:%S} ", FACT), text))


def _words(event: events.Event) -> str:
    if isinstance(event, events.Warned):
        # The glyph says that it is a warning.
        return f"{event.domain}: {event.message}" if event.domain else event.message
    return in_words(event) or ""

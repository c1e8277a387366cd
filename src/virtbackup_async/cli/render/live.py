"""The live view: a redrawn region at the bottom of the terminal, on stderr.

The region shows the active domains. Results and failures are printed above it, and scroll away like
other lines. The region vanishes at the end; the report follows on stdout.
"""

import logging

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from virtbackup_async import events
from virtbackup_async.cli.render.board import Board
from virtbackup_async.cli.render.console import BAD, FACT, GOOD, LOOK
from virtbackup_async.cli.render.drawing import Drawing, glyphs_for
from virtbackup_async.cli.render.reports import Report, report_event
from virtbackup_async.reporting.interface import LogLine, Moment
from virtbackup_async.reporting.sentences import in_words
from virtbackup_async.reporting.text import level_name, printable

_GOOD_ENDS = (
    events.BackupDone,
    events.RestoreDone,
    events.DiskExported,
    events.VerifyDone,
    events.BackupRemoved,
    events.PendingUndone,
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
        self._live = Live(
            console=screen,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def show(self, event: events.Event, at: Moment) -> None:
        self._board.apply(event, at.monotonic_s)
        if isinstance(
            event,
            events.RunStarted | events.BackupStarted | events.RestoreStarted | events.VerifyStarted,
        ):
            self._live.start()
        if mark := self._mark(event):
            glyph, style = mark
            self._print(Text(f"{glyph} {printable(in_words(event) or '')}", style=style), at)
        if isinstance(event, events.Summary):
            self.close()
        report_event(self._report, self._out, event)

    def log(self, line: LogLine, at: Moment) -> None:
        style = LOOK if line.level >= logging.WARNING else FACT
        self._print(Text(f"{level_name(line.level)}: {printable(line.text)}", style=style), at)

    def tick(self, at: Moment) -> None:
        if self._goes_on:
            self._goes_on = False
            self._live.start()
        if self._live.is_started:
            size = self._screen.size
            lines = Drawing(size.width, size.height, self._glyphs).lines(
                self._board, at.monotonic_s
            )
            self._live.update(Group(*lines), refresh=True)

    def pause(self) -> None:
        self._goes_on = self._live.is_started
        self._live.stop()

    def close(self) -> None:
        self._goes_on = False
        self._live.stop()

    def _mark(self, event: events.Event) -> tuple[str, str] | None:
        """Return the glyph and style of an event that is printed above the region."""
        match event:
            case _ if isinstance(event, _GOOD_ENDS):
                return self._glyphs.done, GOOD
            case (
                events.BackupFailed()
                | events.VerifyFailed()
                | events.RepositoryDamaged()
                | events.HookFailed()
            ):
                return self._glyphs.failed, BAD
            case events.PendingLeft() | events.RemovalFailed():
                return self._glyphs.failed, BAD
            case events.Warned():
                return self._glyphs.warning, LOOK
            case events.DiskSkipped():
                # The same every night for a cdrom: information, not an alarm.
                return " ", FACT
            case _:
                return None

    def _print(self, text: Text, at: Moment) -> None:
        # Assembled: text appended to a dim text becomes dim, whatever its own style.
        self._screen.print(Text.assemble((f"{at.wall:%H:%M:%S} ", FACT), text))

"""Whatever a name holds, no text view sends a terminal anything that it obeys.

Every text of every event is hostile, and all events go through every view and every report.
"""

import io
import re
from datetime import UTC, datetime

import pytest
from rich.console import Console

from fakes.events_of_all_kinds import events_named
from rendered_reports import REPORTS, obeyed
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.render.board import Board
from virtbackup_async.cli.render.drawing import Drawing
from virtbackup_async.cli.render.glyphs import UNICODE
from virtbackup_async.cli.render.live import LiveView
from virtbackup_async.cli.render.plain import Plain, Quiet
from virtbackup_async.reporting.interface import LogLine, Moment

HOSTILE = "\x1b[2J<b>\u202eevil\r\n\x07\u200b漢[red]"
NOW = Moment(datetime(2026, 3, 1, 2, 15, tzinfo=UTC), 0.0)
EVENTS = events_named(HOSTILE)


def test_the_events_are_hostile():
    assert len(EVENTS) > 30
    assert sum("evil" in repr(event) for event in EVENTS) > 25


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_sends_a_terminal_nothing_that_it_obeys(name):
    out = io.StringIO()
    console = Console(file=out, width=120, force_terminal=True, color_system=None)
    report = REPORTS[name]()
    for event in EVENTS:
        reports.report_event(report, console, event)
    assert out.getvalue()
    assert obeyed(out.getvalue()) == set()


@pytest.mark.parametrize("quiet", [True, False])
def test_lines_send_a_terminal_nothing_that_it_obeys(quiet):
    err = io.StringIO()
    out = Console(file=io.StringIO())
    view = Quiet(out, err, None) if quiet else Plain(out, err, None, progress=True, phases=True)
    for event in EVENTS:
        view.show(event, NOW)
    view.log(LogLine(30, HOSTILE), NOW)
    shown = err.getvalue()
    assert "evil" in shown
    assert obeyed(shown) == set()
    # A line break of a name must not pass for a line of its own.
    assert all(line.startswith("02:15:00 ") for line in shown.splitlines())


# What the live view itself sends: colours, the cursor, the erasing of the region.
OWN = re.compile(r"\x1b\[(?:\?25[hl]|\?7[hl]|[JK]|\d+A|\d+(?:;\d+)*m|0?m)|\r(?!\n\S)")
NAMES = {
    "escapes": HOSTILE,
    "long": "a-very-long-name-" * 12,
    "wide": "仮想機械" * 50,
    "combining": "e\u0301\u0308" * 60,
    "joined": "\U0001f469\u200d\U0001f4bb\ufe0f" * 40,
    "right to left": "\u05e9\u05e8\u05ea\u202e\u05d2\u05d9" * 20,
    "alone": "\udce9" * 30,
    "empty": "",
}


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("width", [20, 40, 80, 200])
@pytest.mark.parametrize("name", NAMES)
def test_the_live_view_keeps_its_rows_and_sends_nothing_of_a_name_that_a_terminal_obeys(
    name, width, order
):
    written = io.StringIO()
    screen = Console(
        file=written, force_terminal=True, width=width, height=24, color_system="standard"
    )
    board = Board()
    view = LiveView(Console(file=io.StringIO()), screen, None)
    for number, event in enumerate(events_named(NAMES[name])[::order]):
        now = Moment(NOW.wall, float(number))
        view.show(event, now)
        view.tick(now)
        board.apply(event, now.monotonic_s)
        drawn = Drawing(width, 24, UNICODE).lines(board, now.monotonic_s)
        assert len(drawn) < 24
        assert all(line.cell_len < width for line in drawn)
        assert all(line.plain.isprintable() for line in drawn)
    assert obeyed(OWN.sub("", written.getvalue())) == set()

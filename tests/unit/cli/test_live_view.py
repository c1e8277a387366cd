from io import StringIO

import pytest
from rich.console import Console

from fakes.recorded_run import HOSTILE, at, disk_done, done, failed, progress, started, summary
from fakes.recorded_run import whole_run as run_of_two
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.render.board import Board, Speed
from virtbackup_async.cli.render.drawing import ASCII, UNICODE, Drawing
from virtbackup_async.cli.render.live import LiveView
from virtbackup_async.events import (
    DiskExported,
    Phase,
    PhaseChanged,
    RestoreStarted,
    RunStarted,
)
from virtbackup_async.reporting.interface import LogLine


def board_of(events):
    board = Board()
    for event, moment in events:
        board.apply(event, moment.monotonic_s)
    return board


def drawn(board, *, width=80, height=24, now_s=7.0, glyphs=ASCII):
    lines = Drawing(width, height, glyphs).lines(board, now_s)
    return [line.plain.rstrip() for line in lines]


def copying():
    """Ten events in: web copies, db and the hostile one wait."""
    return board_of(run_of_two()[:8])


def test_speed_is_the_mean_of_the_last_seconds_and_falls_when_nothing_comes():
    speed = Speed()
    assert speed.bytes_per_s(0) is None
    for second in range(21):
        speed.add(second * (200 if second > 10 else 100), second)
    assert speed.bytes_per_s(20) == 200
    assert speed.bytes_per_s(26) == 100  # six seconds of 200, then six of none
    assert speed.bytes_per_s(10_000) < 1


def test_a_domain_at_work_is_a_row_and_a_row_for_each_disk():
    assert drawn(copying(), now_s=3.5) == [
        "> web                      copying     2 disks",
        "  vda    #######---  75 %     2.0 GiB/s     0:00 left        3.0 GiB of 4.0 GiB",
        "  vdb    ----------        waiting",
        "1 active, 2 waiting, 0 done   3.0 GiB   2.0 GiB/s   0:04",
    ]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("height", [5, 24])
@pytest.mark.parametrize("glyphs", [ASCII, UNICODE])
def test_the_view_never_outgrows_the_terminal(width, height, glyphs):
    board = board_of([(RunStarted("backup", tuple(map(str, range(60)))), at(0))])
    for number in range(30):
        name = f"{number}日本語" * 10
        board.apply(started(name, "vda", "a-very-long-disk-name"), 1)
        board.apply(progress(name, "vda", 1 + number / 40, 1023.9), 2)
    lines = Drawing(width, height, glyphs).lines(board, 3)
    assert len(lines) <= height - 1
    assert max(line.cell_len for line in lines) < width
    assert "more at work" in lines[-2].plain


def test_a_narrow_terminal_loses_columns_from_the_right():
    texts = {width: "\n".join(drawn(copying(), width=width, now_s=3.5)) for width in (40, 60, 90)}
    assert "of 4.0 GiB" in texts[90]
    assert "of 4.0 GiB" not in texts[60]
    assert "left" in texts[60]
    assert "left" not in texts[40]
    assert "75 %" in texts[40]


def test_many_domains_fold_into_a_row_each():
    board = board_of([(started(f"web{number}", "vda", "vdb"), at(0)) for number in range(6)])
    board.apply(progress("web0", "vda", 1), 1)
    lines = drawn(board, height=10)
    assert len(lines) == 7
    assert "25 %" in lines[0]


def test_states_are_words_and_not_colour_alone():
    board = copying()
    board.apply(PhaseChanged("web", Phase.COMMITTING, "vda"), 4)
    assert "committing" in drawn(board)[1]
    board.apply(disk_done(), 5)
    assert "done" in drawn(board)[1]
    board.apply(PhaseChanged("web", Phase.UNDOING), 6)
    assert drawn(board)[0].startswith("< web")
    assert "undoing" in drawn(board)[0]


def test_ends_are_counted_and_leave_the_board():
    board = board_of(run_of_two())
    assert drawn(board)[-1].startswith("0 active, 1 waiting, 1 done, 1 failed")
    assert len(drawn(board)) == 1


def live(events, *, width=80, color_system=None):
    screen = StringIO()
    console = Console(
        file=screen, width=width, height=24, force_terminal=True, color_system=color_system,
        markup=False, emoji=False, highlight=False,
    )  # fmt: skip
    out = StringIO()
    view = LiveView(Console(file=out, width=width), console, reports.run())
    for event, moment in events:
        view.show(event, moment)
        view.tick(moment)
    view.log(LogLine(30, f"odd {HOSTILE}"), at(8))
    return view, screen, out


def test_ends_and_warnings_are_printed_above_the_region():
    _, screen, _ = live(run_of_two())
    text = screen.getvalue()
    assert "03:00:00 ! warning: an old option: threads" in text
    assert "✓ web: backup done: 4.0 GiB in 52 s, 1.0 GiB stored, frozen for 120 ms" in text
    assert "✗ db: backup failed: the snapshot was refused" in text
    assert "odd evil\\x1b[2J[red]\\u202e" in text


def test_an_export_ends_and_leaves_the_board():
    begun = RestoreStarted("web", "b", "-", ("vda",))
    ended = DiskExported("web", "b", "vda", "-", "raw", verified=True, data_bytes=1)
    events = [(begun, at(0)), (ended, at(1))]
    assert drawn(board_of(events))[-1].startswith("0 active, 0 waiting, 1 done")
    assert "✓ web: vda exported to standard output" in live(events)[1].getvalue()


def test_the_summary_closes_the_region_then_the_result_follows():
    view, screen, out = live(run_of_two())
    assert out.getvalue() == ""
    view.show(summary(3), at(9))
    view.close()
    text = screen.getvalue()
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1
    assert "1 backup done, 1 failed" in out.getvalue()


def test_nothing_is_drawn_before_there_is_work():
    _, screen, _ = live([])
    assert "\x1b[?25l" not in screen.getvalue()


def test_without_colour_no_colour_is_sent():
    text = live([*run_of_two(), (done("x"), at(9)), (failed("y"), at(9))])[1].getvalue()
    assert "\x1b[3" not in text
    coloured = live(run_of_two(), color_system="standard")[1].getvalue()
    assert "\x1b[3" in coloured

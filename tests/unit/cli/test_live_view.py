"""The live view: what it draws, at which size, and what stays on the terminal."""

import io
import re
from io import StringIO

import pytest
from msgspec.structs import replace
from rich.cells import cell_len
from rich.console import Console

from fakes.recorded_run import HOSTILE, at, disk_done, done, failed, progress, started, summary
from fakes.recorded_run import whole_run as run_of_two
from screen import Terminal
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.render.board import Board
from virtbackup_async.cli.render.drawing import Drawing
from virtbackup_async.cli.render.glyphs import ASCII, UNICODE
from virtbackup_async.cli.render.live import LiveView
from virtbackup_async.events import (
    BackupsExpected,
    BackupStarted,
    DiskExported,
    DiskReading,
    DisksHeld,
    ExpectedBackup,
    ExpectedDisk,
    HookStarted,
    Phase,
    PhaseChanged,
    RestoreStarted,
    RunStarted,
    VerifyFailed,
    Warned,
)
from virtbackup_async.reporting.interface import LogLine

GIB = 1 << 30


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


def night(second=30):
    """A night's run of five guests, some seconds in: two copy, one has failed, two wait."""
    names = ("fc-bad", "fc-app", "fc-db", "fc-mail", "fc-web")
    sizes = {"fc-app": (8, 4, 4), "fc-db": (20, 20), "fc-mail": (4,), "fc-web": (10,)}
    expected = tuple(
        ExpectedBackup("production", name, "/mnt/backups", tuple(
            ExpectedDisk(f"vd{letter}", gib * GIB)
            for letter, gib in zip("abc", sizes.get(name, ()), strict=False)
        ))
        for name in names
    )  # fmt: skip
    app = (DiskReading("vda", "b", None), DiskReading("vdb", "b", None))
    db = (DiskReading("vda", "b", None), DiskReading("vdb", None, "its image is raw"))
    run = [
        RunStarted("backup", names),
        BackupsExpected(expected),
        replace(failed("fc-bad"), group="production"),
        BackupStarted("production", "fc-app", "b", ("vda", "vdb", "vdc"), readings=app),
        BackupStarted("production", "fc-db", "c", ("vda", "vdb"), readings=db),
        DisksHeld("fc-app", quiesced=True, frozen_ms=307),
        PhaseChanged("fc-app", Phase.COPYING),
        PhaseChanged("fc-db", Phase.COPYING),
    ]
    told = [(event, at(0)) for event in run]
    for now in range(second + 1):
        told += [
            (progress("fc-app", "vda", min(8, now * 0.2), 8), at(now)),
            (progress("fc-app", "vdb", min(4, now * 0.1), 4), at(now)),
            (progress("fc-db", "vda", now * 0.3, 20), at(now)),
            (progress("fc-db", "vdb", now * 0.1, 20), at(now)),
        ]
    return told


SCREENS = {
    (40, 8): [
        "1 failed  ######----------------   30 %",
        "x fc-bad  the snapshot was refused",
        "> fc-app  ###########---------   56 %",
        "          changes only  frozen 307 ms",
        "> fc-db   ######--------------   30 %",
        "          vdb in full: its image is raw",
        "next: fc-mail, fc-web      0:30 elapsed",
    ],
    (80, 24): [
        "1 failed  1 of 5 done  #######------------------   30 %  802.1 MiB/s  1:10 left",
        "x fc-bad  the snapshot was refused",
        "> fc-app  ###########---------   56 %  0:23 left  vda 75, vdb 75, vdc next",
        "          changes only  frozen 307 ms",
        "> fc-db   ######--------------   30 %  1:09 left  vda 45, vdb 15",
        "          vdb in full: its image is raw",
        "next: fc-mail, fc-web                  production -> /mnt/backups  0:30 elapsed",
    ],
    (120, 40): [
        (
            "1 failed  1 of 5 done  ############----------------------------   30 %  "
            "21.0 GiB of 70.0 GiB  802.1 MiB/s  1:10 left"
        ),
        "x fc-bad  the snapshot was refused",
        (
            "> fc-app  ###########---------   56 %  0:23 left  vda 75, vdb 75, vdc next  "
            "changes only  frozen 307 ms"
        ),
        (
            "> fc-db   ######--------------   30 %  1:09 left  vda 45, vdb 15  "
            "vdb in full: its image is raw"
        ),
        (
            "next: fc-mail, fc-web                                   "
            "production -> /mnt/backups  0:30 elapsed, Ctrl-C undoes cleanly"
        ),
    ],
}


def screen_of(terminal, events, second):
    """Show events on a terminal, and return the view that draws on it."""
    out = Console(file=StringIO(), force_terminal=True, color_system=None)
    view = LiveView(out, terminal.console, reports.run())
    for event, moment in events:
        view.show(event, moment)
    view.tick(at(second))
    return view


@pytest.mark.parametrize("size", SCREENS, ids=str)
def test_what_is_on_the_screen(size):
    assert drawn(board_of(night()), width=size[0], height=size[1], now_s=30) == SCREENS[size]


@pytest.mark.parametrize("wraps", [True, False])
@pytest.mark.parametrize("first", SCREENS, ids=str)
def test_what_is_on_the_screen_after_it_changed_its_size(first, wraps):
    terminal = Terminal(*first, wraps=wraps)
    view = screen_of(terminal, night(), 30)
    for size in ((200, 50), (40, 8), (80, 24), (120, 40), (40, 8), (20, 5), (80, 24)):
        terminal.resize(*size)
        view.tick(at(30))
        rows = [line.plain.rstrip() for line in Drawing(*size, UNICODE).lines(view._board, 30)]
        below = terminal.shown[terminal.cursor[0] :]
        assert below == rows
        assert not [row for row in terminal.shown[: terminal.cursor[0]] if "fc-" in row]
    view.close()
    assert terminal.shown == []
    assert not terminal.cursor_is_hidden


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 200])
@pytest.mark.parametrize("height", [1, 2, 3, 5, 8, 24])
@pytest.mark.parametrize("glyphs", [ASCII, UNICODE])
def test_the_view_never_outgrows_the_terminal(width, height, glyphs):
    board = board_of([(RunStarted("backup", tuple(map(str, range(60)))), at(0))])
    for number in range(30):
        name = f"{number}日本語" * 10
        board.apply(started(name, "vda", "a-very-long-disk-name"), 1)
        board.apply(progress(name, "vda", 1 + number / 40, 1023.9), 2)
        board.apply(replace(failed(f"bad{number}"), reason="日" * 300), 2)
    lines = Drawing(width, height, glyphs).lines(board, 3)
    assert len(lines) <= max(1, height - 1)
    assert max(line.cell_len for line in lines) < width
    assert "30 failed" in lines[0].plain


def test_many_works_are_counted_in_a_low_terminal_and_failures_stay():
    board = board_of([(started(f"web{number}", "vda", "vdb"), at(0)) for number in range(9)])
    for number in range(9):
        board.apply(progress(f"web{number}", "vda", 1), 1)
        board.apply(failed(f"bad{number}"), 1)
    lines = drawn(board, height=10)
    assert len(lines) == 9
    assert [line.split()[1] for line in lines[1:4]] == ["bad6", "bad7", "bad8"]
    assert lines[-2] == "  and 6 more at work"


def test_a_bar_has_twenty_cells_before_there_is_an_amount():
    board = board_of(night())
    for width in range(20, 201):
        whole = drawn(board, width=width, now_s=30)[0]
        if " of 70.0" in whole or "/s" in whole or "left" in whole:
            assert whole.count("#") + whole.count("-") >= 20, whole


def test_no_guest_takes_longer_than_the_whole():
    run = [(RunStarted("backup", ("web",)), at(0)), (started("web"), at(0))]
    run += [(progress("web", "vda", gib, 100), at(gib)) for gib in range(30)]
    run += [
        (progress("web", "vda", 30 + second / 100, 100), at(30 + second)) for second in range(16)
    ]
    whole, web, _ = drawn(board_of(run), width=120, now_s=45)
    assert re.search(r"[0-9:]+ left", whole)[0] == re.search(r"[0-9:]+ left", web)[0]


def test_what_cannot_move_has_no_row():
    run = [(RunStarted("verify", ("web", "db")), at(0)), (started("web"), at(1))]
    assert drawn(board_of(run), now_s=1)[1].startswith("preparing: web  next: db")
    assert len(drawn(board_of(run), now_s=1)) == 2


def test_the_reason_why_something_waits_is_said():
    locked = "process 4711 (backup) works on this domain"
    run = [
        RunStarted("backup", ("web", "db")),
        PhaseChanged("web", Phase.WAITING, reason=locked),
        HookStarted("before", "main"),
    ]
    last = drawn(board_of([(event, at(0)) for event in run]), width=100)[-1]
    assert last.startswith(f"hook before of group main runs  {locked}: web  next: db  ")


def test_states_are_words_and_not_colour_alone():
    board = copying()
    board.apply(PhaseChanged("web", Phase.COMMITTING, "vda"), 4)
    assert "vda committing" in drawn(board)[1]
    board.apply(disk_done(), 5)
    assert "vda done" in drawn(board)[1]
    board.apply(PhaseChanged("web", Phase.UNDOING), 6)
    assert drawn(board)[1].startswith("< web")
    assert "undoing" in drawn(board)[1]


def test_many_disks_are_counted_when_they_are_done():
    disks = [f"vd{letter}" for letter in "abcdef"]
    board = board_of([(started("web", *disks), at(0)), (progress("web", "vda", 4), at(1))])
    for disk in disks[:4]:
        board.apply(disk_done("web", disk), 2)
    assert "4 of 6 disks done, vde next, vdf next" in drawn(board)[1]


def test_domains_of_several_groups_are_named_with_their_group():
    told = tuple(ExpectedBackup(group, "web", f"/{group}", ()) for group in ("a", "b"))
    board = board_of([(RunStarted("backup", ("web",)), at(0)), (BackupsExpected(told), at(0))])
    assert drawn(board)[-1].startswith("next: a/web, b/web")


def test_a_guest_that_could_not_be_frozen_is_pointed_out():
    held = DisksHeld("web", quiesced=False, frozen_ms=None, not_quiesced="guest is paused")
    board = copying()
    board.apply(held, 4)
    assert "not quiesced: guest is paused" in "\n".join(drawn(board))


def live(events, *, width=80, color_system=None, shared=False, **environ):
    screen = StringIO()
    console = Console(
        file=screen, width=width, height=24, force_terminal=True, color_system=color_system,
        markup=False, emoji=False, highlight=False, _environ={"TERM": "xterm", **environ},
    )  # fmt: skip
    out = StringIO()
    report_console = Console(file=out, width=width, force_terminal=shared, color_system=None)
    view = LiveView(report_console, console, reports.run())
    for event, moment in events:
        view.show(event, moment)
        view.tick(moment)
    view.log(LogLine(30, f"odd {HOSTILE}"), at(8))
    view.tick(at(8))
    return view, screen, out


def test_ends_and_warnings_are_printed_above_the_region():
    _, screen, _ = live(run_of_two())
    text = screen.getvalue()
    assert "03:00:00 ! an old option: threads" in text
    assert "✓ web: backup done: 4.0 GiB in 52 s, 1.0 GiB stored, frozen for 120 ms" in text
    assert "✗ db: backup failed: the snapshot was refused" in text
    assert "odd evil\\x1b[2J[red]\\u202e" in text


def test_a_warning_does_not_say_that_it_is_one_twice():
    text = live([(Warned("SIGINT: stopping", "web"), at(0))])[1].getvalue()
    assert text.startswith("03:00:00 ! web: SIGINT: stopping\n")


def test_on_a_shared_terminal_each_result_is_printed_once():
    view, screen, out = live(run_of_two(), shared=True)
    view.show(summary(3), at(9))
    text = screen.getvalue()
    assert text.count("backup done") == 1
    assert "backup failed" not in text, "it has a row, then a line of the report"
    assert "✗ db" in text
    assert out.getvalue().splitlines() == [
        "failed: db: the snapshot was refused",
        "1 backup done, 1 failed, 4.0 GiB read, 1.0 GiB stored",
    ]


def test_a_report_that_goes_elsewhere_is_whole():
    view, screen, out = live(run_of_two())
    view.show(summary(3), at(9))
    assert "backup failed" in screen.getvalue()
    assert out.getvalue().startswith("domain  backup ")


def test_a_failure_before_there_is_a_region_is_printed():
    bad = VerifyFailed("main", "web", "b", "it is cut off", 13)
    assert "web: b: FAILED: it is cut off" in live([(bad, at(0))], shared=True)[1].getvalue()


def test_an_export_ends_and_leaves_the_board():
    begun = RestoreStarted("web", "b", "-", ("vda",))
    ended = DiskExported("web", "b", "vda", "-", "raw", verified=True, data_bytes=1)
    events = [(begun, at(0)), (ended, at(1))]
    assert "✓ web: vda exported to standard output" in live(events)[1].getvalue()
    assert "✓" not in live(events, shared=True)[1].getvalue()


def test_the_summary_closes_the_region_then_the_result_follows():
    view, screen, out = live(run_of_two())
    assert out.getvalue() == ""
    view.show(summary(3), at(9))
    view.close()
    text = screen.getvalue()
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1
    assert "1 backup done, 1 failed" in out.getvalue()


def test_a_stop_leaves_the_terminal_as_it_was_and_the_view_comes_back():
    terminal = Terminal(80, 24)
    view = screen_of(terminal, night(), 30)
    view.show(Warned("stopped: overlays grow until it continues: fc-app"), at(31))
    view.pause()
    assert terminal.shown == ["03:00:31 ! stopped: overlays grow until it continues: fc-app"]
    assert not terminal.cursor_is_hidden
    view.tick(at(60))
    assert terminal.cursor_is_hidden
    assert "fc-app" in "\n".join(terminal.shown[1:])


def test_nothing_is_drawn_before_there_is_work():
    _, screen, _ = live([])
    assert "\x1b[?25l" not in screen.getvalue()


def test_without_colour_no_colour_is_sent():
    run = [*run_of_two(), (done("x"), at(9)), (failed("y"), at(9))]
    colours = re.compile(r"\x1b\[[0-9;]*m")
    assert not colours.search(live(run)[1].getvalue())
    assert colours.search(live(run, color_system="standard")[1].getvalue())
    none = live(run, color_system="standard", NO_COLOR="1")[1].getvalue()
    assert set(colours.findall(none)) <= {"\x1b[0m", "\x1b[1m", "\x1b[2m"}


def test_failures_are_red_and_bold_on_any_ground():
    terminal = Terminal(80, 24, coloured=True)
    screen_of(terminal, night(), 30)
    assert terminal.styles_of("the snapshot") == ("red", True)
    assert terminal.styles_of("1 failed") == ("red", True)
    # The text itself has the ground's own colour, light or dark.
    assert terminal.styles_of("0:23 left") == ("default", False)


def test_an_encoding_without_the_glyphs_gets_ascii():
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="backslashreplace")
    console = Console(file=screen, width=80, height=24, force_terminal=True, color_system=None)
    view = LiveView(Console(file=StringIO()), console, None)
    for event, moment in night():
        view.show(event, moment)
    view.tick(at(30))
    screen.flush()
    assert "> fc-app  ###########---------   56 %" in screen.buffer.getvalue().decode("ascii")


def test_wide_names_keep_their_columns():
    board = board_of([(RunStarted("backup", ("日本", "web")), at(0))])
    for name in ("日本", "web"):
        board.apply(started(name), 0)
        board.apply(progress(name, "vda", 1), 1)
    lines = Drawing(80, 24, ASCII).lines(board, 2)
    assert [cell_len(line.plain.partition("#")[0]) for line in lines[1:3]] == [8, 8]

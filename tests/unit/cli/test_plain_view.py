from io import StringIO

from rich.console import Console

from fakes.recorded_run import HOSTILE, at, failed, progress, started, summary, whole_run
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.render.console import text_console
from virtbackup_async.cli.render.plain import Plain, Quiet
from virtbackup_async.reporting.interface import LogLine


def plain(events, *, progress=True, phases=False):
    out, err = StringIO(), StringIO()
    view = Plain(text_console(out), err, reports.run(), progress=progress, phases=phases)
    for event, moment in events:
        view.show(event, moment)
    return out.getvalue(), err.getvalue()


def test_a_run_reads_line_by_line():
    out, err = plain(whole_run())
    assert out == ""
    assert err.splitlines() == [
        "03:00:00 backup: 3 domains",
        "03:00:00 warning: an old option: threads",
        "03:00:01 web: backup started: 20260701-030000_1_web (vda, vdb)",
        "03:00:02 web vda: 25 %, 1.0 GiB of 4.0 GiB",
        "03:00:03 web vda: 50 %, 2.0 GiB of 4.0 GiB",
        "03:00:03 web vda: 75 %, 3.0 GiB of 4.0 GiB",
        "03:00:05 web vda: done: 4.0 GiB of data in 10.0 GiB",
        "03:00:05 web vdc: skipped: it is a host device",
        "03:00:06 db: backup started: 20260701-030000_1_db (vda)",
        "03:00:06 db: backup failed: the snapshot was refused",
        "03:00:07 web: backup done: 4.0 GiB in 52 s, 1.0 GiB stored, frozen for 120 ms",
    ]


def test_progress_is_a_line_every_ten_per_cent():
    steps = [(progress("web", "vda", done / 100, 10), at(0)) for done in range(1001)]
    lines = plain(steps)[1].splitlines()
    assert [line.split()[3] for line in lines] == [str(step) for step in range(10, 100, 10)]
    assert plain(steps, progress=False)[1] == ""


def test_phases_are_said_on_demand():
    assert "web vda: committing" in plain(whole_run(), phases=True)[1]
    assert "committing" not in plain(whole_run())[1]


def test_a_hostile_name_reaches_the_terminal_escaped():
    out, err = plain([(started(HOSTILE), at(0)), (failed(HOSTILE), at(1)), (summary(3), at(2))])
    assert "\x1b" not in out + err
    assert "\u202e" not in out + err
    assert out.count("evil\\x1b[2J[red]\\u202e") == 1
    assert err.count("evil\\x1b[2J[red]\\u202e") == 3


def test_quiet_says_only_what_went_wrong():
    err = StringIO()
    view = Quiet(Console(file=StringIO()), err, None)
    for event, moment in whole_run():
        view.show(event, moment)
    view.log(LogLine(40, "lost a thing"), at(9))
    assert err.getvalue().splitlines() == [
        "03:00:00 warning: an old option: threads",
        "03:00:06 db: backup failed: the snapshot was refused",
        "03:00:09 error: lost a thing",
    ]

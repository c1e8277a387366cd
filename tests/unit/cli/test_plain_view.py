from io import StringIO
from itertools import groupby
from operator import itemgetter

import pytest
from rich.console import Console

from fakes.recorded_run import HOSTILE, at, failed, progress, started, summary, whole_run
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.render.console import text_console
from virtbackup_async.cli.render.plain import Plain, Quiet
from virtbackup_async.events import PinChanged, RunStarted
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
        "03:00:05 web vda: done: 4.0 GiB of data in 10.0 GiB",
        "03:00:05 web vdc: skipped: it is a host device",
        "03:00:06 db: backup started: 20260701-030000_1_db (vda)",
        "03:00:06 db: backup failed: the snapshot was refused",
        "03:00:07 web: backup done: 4.0 GiB in 52 s, 1.0 GiB stored, frozen for 120 ms",
    ]


def ticking(events, **more):
    out, err = StringIO(), StringIO()
    view = Plain(text_console(out), err, None, **{"progress": True, "phases": False, **more})
    for moment, told in groupby(events, key=itemgetter(1)):
        for event, _ in told:
            view.show(event, moment)
        view.tick(moment)
    return err.getvalue().splitlines()


def copying_for(seconds, names=("web",)):
    """One GiB a second of each of some domains of 100 GiB; ten times a second they say so."""
    steps = range(seconds * 10 + 1)
    return [(progress(name, "vda", n / 10, 100), at(n / 10)) for n in steps for name in names]


def test_progress_is_at_most_a_line_in_ten_seconds_with_a_total():
    run = [(RunStarted("backup", ("web", "db", "mail")), at(0)), *copying_for(35, ("web", "db"))]
    lines = ticking(run)[1:]
    assert [line.split()[0] for line in lines] == ["03:00:10", "03:00:20", "03:00:30"]
    assert lines[0].endswith("0 of 3 done, web 10 %, db 10 %")
    assert "progress: 6 %, 20.0 GiB of 300.0 GiB, 2.0 GiB/s, " in lines[0]
    assert ticking(run, progress=False)[1:] == []


def test_progress_that_stands_still_says_nothing():
    still = [(progress("web", "vda", 1, 10), at(second)) for second in range(60)]
    assert len(ticking(still)) == 1
    assert ticking([(RunStarted("backup", ("web",)), at(0)), (summary(), at(60))])[1:] == []


def test_many_domains_are_one_line():
    names = tuple(f"web{number}" for number in range(20))
    (line,) = ticking(copying_for(12, names))
    assert line.endswith("web7 10 %, and 12 more")


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


@pytest.mark.parametrize("quiet", [True, False])
def test_a_dry_run_says_only_that_a_backup_would_fail(quiet):
    out, err = StringIO(), StringIO()
    console, report = text_console(out), reports.preview()
    view = (
        Quiet(console, err, report)
        if quiet
        else Plain(console, err, report, progress=False, phases=False)
    )
    for event in (failed("db"), summary(3)):
        view.show(event, at(0))
    assert err.getvalue() == ""
    assert out.getvalue() == "db: would fail: the snapshot was refused\n"


def test_a_pin_is_said_once():
    out, err = StringIO(), StringIO()
    view = Plain(text_console(out), err, reports.pins(), progress=False, phases=False)
    for event in (PinChanged("main", "web", "b", "/t/web/b.json", pinned=True), summary()):
        view.show(event, at(0))
    assert (out.getvalue(), err.getvalue()) == ("web: b: pinned\n", "")

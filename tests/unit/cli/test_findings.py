from io import StringIO

from fakes.recorded_run import HOSTILE, summary
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.render.console import text_console
from virtbackup_async.events import Finding, Level
from virtbackup_async.reporting.outcome import RunOutcome

FOUND = (
    Finding(Level.OK, "target", "/t", "can be written to", "Nothing to do."),
    Finding(Level.WARNING, "agent", HOSTILE, "is silent", "Install it."),
    Finding(Level.PROBLEM, "disk", "web", "vda is gone", "Bring it back."),
    Finding(Level.INFO, "disk", "web", "hdc is a cdrom"),
)


def printed(report, found=FOUND, width=None):
    for finding in found:
        report.add(finding)
    out = StringIO()
    report.print(text_console(out, width=width), summary())
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_the_gravest_come_last_with_what_to_do():
    lines = printed(reports.findings())
    assert [line.split()[0] for line in lines] == [
        "ok", "info", "warning", "->", "problem", "->", "1",
    ]  # fmt: skip
    assert lines[-2].endswith("-> Bring it back.")
    assert lines[-1] == "1 problem, 1 warning, 4 checks"


def test_quiet_shows_only_what_is_wrong_and_names_are_harmless():
    lines = printed(reports.findings(all_shown=False))
    assert len(lines) == 4
    assert "\\x1b[2J" in lines[0]


def test_a_command_in_an_advice_stays_in_one_row():
    advice = "Make one tonight: run `virtbackup backup main` now."
    found = [Finding(Level.PROBLEM, "h", "web", "x", advice)]
    lines = printed(reports.findings(), found, 40)
    assert lines[1:4] == [
        "         -> Make one tonight: run",
        "         `virtbackup backup main` now.",
        "1 problem, 0 warnings, 1 check",
    ]


def test_what_is_equal_of_several_is_one_row_and_what_is_ok_is_counted():
    report = reports.findings(folded=True)
    for number in range(10):
        missing = ("has no backup yet", "Run it.")
        report.add(Finding(Level.WARNING, "backups", f"web{number}", *missing))
    lines = printed(report)
    names = ", ".join(f"web{number}" for number in range(8))
    assert [line for line in lines if "no backup yet" in line] == [
        f"warning  {names} and 2 more: has no backup yet"
    ]
    assert sum("Run it." in line for line in lines) == 1
    assert not [line for line in lines if line.startswith("ok")]
    assert lines[-1] == "1 problem, 11 warnings, 14 checks; 1 is ok: -v lists it"


def test_only_problems_change_the_exit_code():
    run_outcome = RunOutcome([].append)
    for finding in FOUND:
        if finding.level is not Level.PROBLEM:
            run_outcome.emit(finding)
    assert run_outcome.summary([], None).exit_code == 0
    run_outcome.emit(FOUND[2])
    last = run_outcome.summary([], None)
    assert (last.exit_code, last.error) == (3, "1 problem found")

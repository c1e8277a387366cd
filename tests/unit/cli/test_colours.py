"""Red is bad, yellow is to be looked at, green is good; nothing bad is dim."""

from io import StringIO

import pytest
from msgspec.structs import replace
from rich.console import Console

from fakes.recorded_run import at, done, failed, listed, started, summary
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.render.live import LiveView
from virtbackup_async.events import (
    CleanVerdict,
    Finding,
    HookFailed,
    Level,
    ListedDomain,
    PendingLeft,
    RepositoryDamaged,
    VerifyDone,
    VerifyFailed,
    Warned,
)

DATE = "2026-07-02T12:00:00+00:00"
VERIFY_FAILED = VerifyFailed("main", "db", "c", "damaged", 13)
BAD, LOOK, GOOD, FACT = "\x1b[1;31m", "\x1b[33m", "\x1b[32m", "\x1b[2m"


def terminal(**options):
    return Console(
        file=StringIO(), force_terminal=True, color_system="standard", width=200, **options
    )


def shown(report, *events, **options):
    console = terminal(**options)
    for event in events:
        report.add(event)
    report.print(console, summary())
    return console.file.getvalue()


def view(*events):
    screen = terminal(_environ={"TERM": "xterm"})
    live = LiveView(terminal(), screen, None)
    for event in events:
        live.show(event, at(1))
    live.close()
    return screen.file.getvalue()


@pytest.mark.parametrize(
    ("event", "style"),
    [
        (failed(), BAD),
        (HookFailed("after", None, "hook after exited with 1"), BAD),
        (VERIFY_FAILED, BAD),
        (RepositoryDamaged("/t", "a pack is lost", 1), BAD),
        (Warned("look"), LOOK),
        (done(), GOOD),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_went_wrong_is_not_dim(event, style):
    line = view(event).splitlines()[0]
    stamp, _, rest = line.partition("\x1b[0m")
    assert stamp.startswith(FACT)
    assert rest.startswith(style)
    assert "\x1b[2" not in rest


def test_list_shows_damaged_in_red_unverified_in_yellow_good_in_green():
    backup = listed("web", 1)
    events = (
        replace(backup, domain="bad", verified=False, verified_date=DATE),
        replace(backup, domain="good", verified=True, verified_date=DATE),
        replace(backup, domain="new"),
        ListedDomain("main", "none"),
    )
    text = shown(reports.listing(), *events)
    assert f"{BAD}FAILED 2026-07-02\x1b[0m" in text
    assert f"{GOOD}2026-07-02\x1b[0m" in text
    assert f"{LOOK}never\x1b[0m" in text
    assert f"{LOOK}no backup\x1b[0m" in text
    assert "\x1b[" not in shown(reports.listing(), *events, no_color=True).replace(
        "\x1b[1m", ""
    ).replace("\x1b[0m", "")


def test_colours_leave_the_columns_where_they_are():
    damaged = replace(listed("a-long-name", 2), verified=False, verified_date=DATE)
    events = (listed("web", 1), damaged)
    plain = Console(file=StringIO(), width=200)
    report = reports.listing()
    for event in events:
        report.add(event)
    report.print(plain, summary())
    coloured = shown(reports.listing(), *events)
    for code in (BAD, LOOK, GOOD, "\x1b[1m", "\x1b[0m"):
        coloured = coloured.replace(code, "")
    assert coloured == plain.file.getvalue()


def test_clean_shows_what_goes_and_what_it_could_not_do():
    verdict = CleanVerdict("main", "web", "b", DATE, "/t/b.json", False, ("none",), 1)
    text = shown(reports.clean(dry_run=True), verdict, replace(verdict, keep=True))
    assert f"{LOOK}goes" in text
    assert f"{GOOD}stays" in text
    left = PendingLeft("main", "web", "b", "/t/b.json.pending", "somebody works on it")
    assert BAD in shown(reports.clean(dry_run=False), left)


def test_verify_and_backup_show_failures_in_red():
    good = VerifyDone("main", "web", "b", "/t/b.json", digests=True, data_bytes=1, duration_s=1)
    text = shown(reports.verify(), good, VERIFY_FAILED)
    assert f"{GOOD}web: b" in text
    assert f"{BAD}db: c: FAILED" in text
    text = shown(reports.run(), started(), done(), failed(), failed("x", cancelled=True))
    assert f"{BAD}failed: db" in text
    assert f"{LOOK}interrupted: x" in text


def test_findings():
    findings = (Finding(level, "check", "subject", "message") for level in Level)
    text = shown(reports.findings(), *findings)
    assert f"{BAD}problem" in text
    assert f"{LOOK}warning" in text
    assert f"{GOOD}ok" in text

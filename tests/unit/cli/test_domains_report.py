"""``list`` with a row for each domain: the newest good backup, and the worst first if asked."""

from io import StringIO

import pytest
from msgspec.structs import replace

from fakes.recorded_run import GIB, HOSTILE, listed, summary
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.render.console import text_console
from virtbackup_async.events import BrokenBackup, ListedDomain, TargetSpace, TargetUnreadable
from virtbackup_async.reporting.reports.listing import SORTS

DAY_S = 86_400


def backup(domain, day, state="good", stored=GIB, group="main"):
    one = listed(domain, day, group)
    date = 1_782_000_000 + day * DAY_S
    verified = {"good": True, "unverified": None, "damaged": False}[state]
    return replace(
        one, state=state, date_unix=date, age_s=(10 - day) * DAY_S, stored_bytes=stored,
        verified=verified, verified_date=one.date if verified is not None else None,
    )  # fmt: skip


BROKEN = BrokenBackup("main", "db", "NAME", "/b/db/NAME.json", "data missing: x")
SPACE = TargetSpace("/b", 9 * GIB, 5 * GIB, ("main",))


@pytest.fixture(autouse=True)
def utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")


def printed(*events, sort="name", ok=True, width=None):
    report, out = reports.listing(by_domain=lambda: True, sort=sort), StringIO()
    for event in events:
        report.add(event)
    report.print(text_console(out, width=width), summary(0 if ok else 22))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_each_domain_has_one_row_and_the_totals_are_last():
    events = [backup("web", 1), backup("web", 2), backup("web", 3, "damaged"), backup("db", 9)]
    head, columns, *rows, totals = printed(*events, ListedDomain("main", "new"), SPACE)
    assert head == "main -> /b"
    assert columns.split("  ")[0] == "domain"
    assert [row.split()[0] for row in rows] == ["db", "new", "web"]
    assert totals == "3 domains, 4 backups, 4.0 GiB stored; 5.0 GiB free"


def cells(line):
    return [cell for cell in line.split("  ") if cell.strip()]


def test_the_row_is_that_of_the_newest_good_backup():
    lines = printed(backup("web", 1), backup("web", 2, "unverified"), backup("web", 3, "damaged"))
    name, date, age, number, state, *_ = (cell.strip() for cell in cells(lines[2]))
    assert (name, date, age, number) == ("web", "2026-07-02 12:00:00", "8 days", "3")
    assert state == "unverified"


def test_a_domain_without_a_good_backup_says_so():
    lines = printed(backup("web", 1, "damaged"), BROKEN, ListedDomain("main", "new"))
    rows = {cells(line)[0].strip(): line for line in lines[2:5]}
    assert "NONE" in rows["web"]
    assert "damaged" in rows["web"]
    assert "0 +1 broken" in rows["db"]
    assert "no backup" in rows["new"]
    assert any("NAME" in line and "data missing: x" in line for line in lines)
    assert lines[-1].startswith("3 domains, 1 backup, 1 BROKEN")


def test_the_trend_is_relative_to_the_largest():
    stored = [0, GIB, 7 * GIB]
    lines = printed(*(backup("web", day, stored=size) for day, size in enumerate(stored, 1)))
    assert lines[2].endswith("_.#")


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("name", ["a", "b", "c", "d"]),
        ("age", ["d", "c", "a", "b"]),
        ("count", ["a", "b", "c", "d"]),
        ("stored", ["b", "a", "c", "d"]),
        ("state", ["d", "c", "b", "a"]),
    ],
)
def test_the_worst_oldest_or_largest_is_first(sort, order):
    events = [
        backup("a", 5), backup("a", 4), backup("b", 6, "unverified", 9 * GIB),
        backup("c", 1, "damaged"), ListedDomain("main", "d"),
    ]  # fmt: skip
    lines = printed(*events, sort=sort)
    assert [cells(line)[0].strip() for line in lines[2:6]] == order
    assert sort in SORTS


def test_a_target_that_cannot_be_read_does_not_look_like_no_backups():
    unreadable = TargetUnreadable("far", "/far", "cannot read /far")
    lines = printed(backup("web", 1), unreadable, ok=False)
    assert any("TARGET NOT READABLE" in line for line in lines)
    assert "web" in lines[2]
    assert printed(unreadable, ok=False) == [lines[-1]]


def test_names_reach_the_terminal_escaped():
    text = "\n".join(printed(backup(HOSTILE, 1, group=HOSTILE), replace(BROKEN, error=HOSTILE)))
    assert all(character.isprintable() or character == "\n" for character in text)


def test_a_narrow_terminal_gives_up_no_more_columns_than_it_must():
    heads = [printed(backup("web", 1), width=width)[1].split() for width in (200, 80, 64, 48)]
    assert [head[-3:] for head in heads[:2]] == [["verified", "stored", "trend"]] * 2
    assert [head[-1] for head in heads[2:]] == ["verified", "state"]


def test_a_narrow_terminal_keeps_name_age_and_state():
    lines = printed(backup("web", 1), width=60)
    assert "2026-07-01 12:00" in lines[2]
    assert "good" in lines[2]
    assert all(len(line) <= 60 for line in lines)

"""What ``stats`` prints: tables, charts, on terminals wide and narrow, and where there is none."""

from io import StringIO

import pytest
from rich.console import Console

from fakes.recorded_run import GIB, HOSTILE, summary
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.render.console import text_console
from virtbackup_async.cli.render.stats import print_days
from virtbackup_async.events import (
    BackupStats,
    DayStats,
    DomainStats,
    GroupStats,
    PastRequests,
    RepositoryStats,
)

AMOUNTS = (10 * GIB, 4 * GIB, GIB)


def shown(*events, width=None):
    report, out = reports.stats(), StringIO()
    for event in events:
        report.add(event)
    report.print(text_console(out, width=width), summary())
    return out.getvalue().splitlines()


def chart(amounts, *, width=60, terminal=True, encoding="utf-8", color=False):
    out = StringIO()
    out.encoding_name = encoding
    console = Console(
        file=out, width=width, force_terminal=terminal, no_color=not color,
        color_system="standard" if color else None, highlight=False,
    )  # fmt: skip
    print_days(console, amounts)
    return out.getvalue().splitlines()


def test_a_line_a_domain_and_one_for_the_group():
    assert shown(
        DomainStats("main", "db", 1, *AMOUNTS),
        DomainStats("main", HOSTILE, 2, *AMOUNTS),
        GroupStats("main", 2, 3, 20 * GIB, 8 * GIB, 0),
        DomainStats("test", "web", 1, *AMOUNTS),
        GroupStats("test", 1, 1, *AMOUNTS),
    ) == [
        "group  domain                  backups  disk      used     stored   ratio",
        "main   db                      1        10.0 GiB  4.0 GiB  1.0 GiB  4.0",
        r"main   evil\x1b[2J[red]\u202e  2        10.0 GiB  4.0 GiB  1.0 GiB  4.0",
        "main   2 domains               3        20.0 GiB  8.0 GiB  0 B      -",
        "test   web                     1        10.0 GiB  4.0 GiB  1.0 GiB  4.0",
    ]


def test_a_repository_has_both_ratios():
    store = RepositoryStats("/b", 12, 80 * GIB, 6 * GIB, 90 * GIB, 84 * GIB, 8 * GIB, 5 * GIB)
    assert shown(store)[-2:] == [
        "/b: repository of 12 backups: 80.0 GiB used in 6.0 GiB stored",
        "  chunks: 84.0 GiB, different ones 8.0 GiB (10.5 to 1), compressed to 5.0 GiB (1.6 to 1)",
    ]


def test_requests_are_shown_by_verb_the_most_first():
    past = PastRequests(f"s3://{HOSTILE}", 30, 2, {"get": 10, HOSTILE: 14}, 600, 40)
    assert shown(past)[-2:] == [
        (
            r"s3://evil\x1b[2J[red]\u202e: 24 requests of 2 runs in the last 30 days, 600 B sent, "
            "40 B received"
        ),
        r"  evil\x1b[2J[red]\u202e 14, get 10",
    ]


def backup(number, freed_bytes):
    name = f"2026070{number}-030000_3_web"
    date = f"2026-07-0{number}T03:00:00+00:00"
    return BackupStats("main", "web", name, date, "repository", *AMOUNTS, freed_bytes)


def test_backups_are_a_table_of_their_own():
    assert shown(backup(1, 5), backup(2, GIB), width=90)[2:] == [
        "group  backup                 packager    disk      used     stored   frees",
        "main   20260701-030000_3_web  repository  10.0 GiB  4.0 GiB  1.0 GiB  5 B",
        "main   20260702-030000_3_web  repository  10.0 GiB  4.0 GiB  1.0 GiB  1.0 GiB",
    ]
    assert shown(backup(1, 5), width=60)[2:] == [
        "group  backup                 used     stored   frees",
        "main   20260701-030000_3_web  4.0 GiB  1.0 GiB  5 B",
    ]


def test_nothing_is_said_to_be_nothing():
    assert shown(GroupStats("main", 0, 0, 0, 0, 0)) == ["no backups"]


def test_each_group_has_a_chart_of_its_days():
    lines = shown(
        DayStats("main", "2026-07-01", 1, *AMOUNTS),
        DayStats("main", "2026-07-02", 1, 0, 0, GIB // 2),
        DayStats("test", "2026-07-02", 1, *AMOUNTS),
    )
    assert lines[2:5] == [
        "main: added by day",
        "2026-07-01  " + 40 * "#" + "  1.0 GiB",
        "2026-07-02  " + 20 * "#" + 20 * " " + "  512.0 MiB",
    ]
    assert "test: added by day" in lines


def test_days_without_backups_stand_empty_and_old_ones_are_left_out():
    lines = chart({"2026-05-01": GIB, "2026-06-30": 2 * GIB, "2026-07-02": 1}, terminal=False)
    assert len(lines) == 30
    assert lines[0] == "2026-06-03"
    assert lines[-3].startswith("2026-06-30  ####")
    assert lines[-2] == "2026-07-01"
    assert lines[-1].split() == ["2026-07-02", "#", "1", "B"], "what is little is seen"


@pytest.mark.parametrize("width", [80, 40, 31, 30, 20])
def test_the_chart_fits(width):
    lines = chart({"2026-07-01": 1023 * GIB, "2026-07-02": 5}, width=width)
    assert all(line.startswith("2026-07-0") for line in lines)
    assert all(line.endswith(("1023.0 GiB", "5 B")) for line in lines)
    if width > 24:
        assert max(map(len, lines)) < width


def test_signs_and_colours_are_the_terminals():
    amounts = {"2026-07-01": GIB}
    assert "\x1b[32m━" in chart(amounts, color=True)[0]
    assert chart(amounts)[0].split()[1] == 35 * "━"
    assert chart(amounts, terminal=False)[0].split()[1] == 35 * "#"


def test_nothing_added_is_no_bar():
    assert chart({"2026-07-01": 0}, terminal=False) == ["2026-07-01" + 39 * " " + "0 B"]

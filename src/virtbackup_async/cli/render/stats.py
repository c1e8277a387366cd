"""Prints how much data the backups hold, and how much space they take (``stats``).

::

    group  domain     backups  disk       used      stored   ratio
    main   db         14       140.0 GiB  20.1 GiB  3.9 GiB  5.2
    main   web        14       140.0 GiB  37.3 GiB  1.2 GiB  31.1
    main   2 domains  28       280.0 GiB  57.4 GiB  5.1 GiB  11.3

    main: added by day
    2026-07-01  ########################  4.1 GiB
    2026-07-02  ##                        310.0 MiB

    backup                 packager    used      stored     frees
    20260702-030000_3_web  repository  20.1 GiB  310.0 MiB  2.0 MiB

    /mnt/backups: repository of 28 backups: 57.4 GiB used in 5.2 GiB stored
      chunks: 58.0 GiB, different ones 7.3 GiB (7.9 to 1), compressed to 5.1 GiB (1.4 to 1)
"""

from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from typing import Final

from rich.console import Console
from rich.text import Text

from virtbackup_async import events
from virtbackup_async.cli.render.columns import Column, Row, print_columns
from virtbackup_async.cli.render.console import BAD, LOOK
from virtbackup_async.cli.render.glyphs import glyphs_for
from virtbackup_async.cli.render.lines import INDENT, print_line
from virtbackup_async.cli.render.listing import guest_cells, said_of_guests
from virtbackup_async.model.amounts import size
from virtbackup_async.reporting.reports.stats import StatsReport
from virtbackup_async.reporting.sentences import not_counted_in_words
from virtbackup_async.reporting.text import count

_BACKUP_COLUMNS = (
    Column("group", may_go=True),
    Column("backup"),
    Column("packager", may_go=True),
    Column("disk", may_go=True),
    Column("used"),
    Column("stored"),
    Column("frees"),
)
_HEADS = ("group", "domain", "host", "uuid", "backups", "disk", "used", "stored", "ratio")
_COLUMNS = tuple(map(Column, _HEADS))

MOST_DAYS: Final = 30
_LEAST_BAR: Final = 5
_MOST_BAR: Final = 40
_GAP: Final = "  "


def print_stats(report: StatsReport, console: Console, summary: events.Summary) -> None:
    """Print the figures: domains, days, backups, repositories."""
    if not report.amounts and summary.ok:
        print_line(console, "no backups")
    said = said_of_guests(one for one in report.amounts if isinstance(one, events.DomainStats))
    print_columns(console, _COLUMNS, [_row(amounts, said) for amounts in report.amounts])
    for group, days in report.days.items():
        console.print()
        print_line(console, f"{group}: added by day", "bold")
        print_days(console, days)
    if report.backups:
        console.print()
        print_columns(console, _BACKUP_COLUMNS, [_backup_row(one) for one in report.backups])
    for repository in report.repositories:
        console.print()
        print_line(console, _line(repository))
        print_line(console, _chunks_line(repository), head=INDENT)
    for past in report.requests:
        console.print()
        print_line(console, _requests_line(past))
        verbs = sorted(past.requests.items(), key=lambda one: -one[1])
        print_line(console, ", ".join(f"{verb} {number}" for verb, number in verbs), head=INDENT)
    for event in report.not_counted:
        style = LOOK if isinstance(event, events.UnclaimedBackups) else BAD
        print_line(console, not_counted_in_words(event), style)


def print_days(console: Console, amounts: Mapping[str, int]) -> None:
    """Write a line for each day of the last month, from the first day to the last.

    Args:
        console: stdout.
        amounts: bytes by day, ``2026-07-01``; at least one.
    """
    days = list(_days(amounts))
    top = max(amounts[day] for day in days if day in amounts)
    room = console.width - len(_GAP.join([days[0], "", "1023.9 MiB"])) - 1
    width = min(_MOST_BAR, room) if room >= _LEAST_BAR else 0
    full = glyphs_for(console).full
    for day in days:
        amount = amounts.get(day, 0)
        line = Text(day)
        if width:
            # Even the smallest amount is visible.
            length = -(-width * amount // top) if top else 0
            line.append(_GAP)
            line.append(full * length, style="green")
            line.append(" " * (width - length))
        line.append(f"{_GAP}{size(amount)}" if day in amounts else "")
        line.rstrip()
        console.print(line, soft_wrap=True)


def _days(amounts: Mapping[str, int]) -> Iterator[str]:
    last = date.fromisoformat(max(amounts))
    first = max(date.fromisoformat(min(amounts)), last - timedelta(days=MOST_DAYS - 1))
    for number in range((last - first).days + 1):
        yield (first + timedelta(days=number)).isoformat()


def _row(amounts: events.DomainStats | events.GroupStats, said: frozenset[str]) -> Row:
    guest = guest_cells(amounts, said) if isinstance(amounts, events.DomainStats) else {}
    return {
        "group": amounts.group,
        "domain": _whose(amounts),
        **guest,
        "backups": str(amounts.backups),
        "disk": size(amounts.size_bytes),
        "used": size(amounts.data_bytes),
        "stored": size(amounts.stored_bytes),
        "ratio": _ratio(amounts.data_bytes, amounts.stored_bytes),
    }


def _whose(amounts: events.DomainStats | events.GroupStats) -> str:
    if isinstance(amounts, events.DomainStats):
        return amounts.domain
    return count(amounts.domains, "domain")


def _backup_row(backup: events.BackupStats) -> Row:
    return {
        "group": backup.group,
        "backup": backup.backup,
        "packager": backup.packager,
        "disk": size(backup.size_bytes),
        "used": size(backup.data_bytes),
        "stored": size(backup.stored_bytes),
        "frees": size(backup.freed_bytes),
    }


def _line(repository: events.RepositoryStats) -> str:
    backups = f"{repository.target}: repository of {count(repository.backups, 'backup')}"
    used, stored = size(repository.data_bytes), size(repository.stored_bytes)
    return f"{backups}: {used} used in {stored} stored"


def _requests_line(past: events.PastRequests) -> str:
    requests = count(sum(past.requests.values()), "request")
    runs = f"{past.target}: {requests} of {count(past.runs, 'run')} in the last {past.days} days"
    return f"{runs}, {size(past.sent_bytes)} sent, {size(past.received_bytes)} received"


def _chunks_line(repository: events.RepositoryStats) -> str:
    equal = _ratio(repository.mapped_bytes, repository.chunk_bytes)
    compressed = _ratio(repository.chunk_bytes, repository.chunk_stored_bytes)
    return (
        f"chunks: {size(repository.mapped_bytes)}, different ones {size(repository.chunk_bytes)} "
        f"({equal} to 1), compressed to {size(repository.chunk_stored_bytes)} ({compressed} to 1)"
    )


def _ratio(data_bytes: int, stored_bytes: int) -> str:
    return f"{data_bytes / stored_bytes:.1f}" if stored_bytes else "-"

"""Prints one row for each domain: whether it can be restored, and to when (``list``).

::

    main -> /mnt/backups
    domain  newest good       age      backups  state  verified    stored    trend
    web     2026-07-01 03:00  5 hours  14       good   2026-07-02  1.2 GiB   ▁▁▂▁▇
    db      2026-06-24 03:00  7 days   3 +1     good   2026-06-25  20.1 GiB  ▃▃▄
    2 domains, 17 backups, 1 BROKEN, 21.3 GiB stored; 49.8 GiB free

The trend has what each of the last ten backups added to the target, the newest last.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Console

from virtbackup_async.cli.render.columns import Column, Row, print_columns
from virtbackup_async.cli.render.console import BAD, GOOD, LOOK
from virtbackup_async.cli.render.lines import print_line
from virtbackup_async.cli.render.listing import (
    guest_cells,
    local_date,
    said_of_guests,
    verified_day,
)
from virtbackup_async.events import Summary, TargetUnreadable
from virtbackup_async.model.amounts import age, size
from virtbackup_async.reporting.reports.listing import (
    DomainRow,
    ListedGroup,
    ListingReport,
    domain_rows,
)
from virtbackup_async.reporting.sentences import not_counted_in_words
from virtbackup_async.reporting.text import count

_NONE: Final = "no backup"
_STYLES: Final = {
    "good": GOOD, "unverified": LOOK, "damaged": BAD, "broken": BAD, _NONE: LOOK, "": "",
}  # fmt: skip
_BARS: Final = "▁▂▃▄▅▆▇█"
_ASCII_BARS: Final = "_.-~=+*#"
_MINUTE: Final = len("2026-07-01 03:00")
_COLUMNS: Final = (
    Column("domain"),
    Column("host"),
    Column("uuid"),
    Column("newest good", short=lambda date: date[:_MINUTE]),
    Column("age"),
    Column("backups", style=lambda number: BAD if "+" in number else ""),
    Column("state", style=lambda state: _STYLES.get(state, "")),
    Column("verified", may_go=True),
    Column("stored", may_go=True),
    Column("trend", may_go=True),
)


def print_domains(
    report: ListingReport, console: Console, summary: Summary, *, sort: str = "name"
) -> None:
    """Print the groups in the order they came, then what cannot be listed."""
    if not report.groups and summary.ok:
        print_line(console, "no backups")
    bars = _BARS if console.is_terminal and not console.options.ascii_only else _ASCII_BARS
    targets = {group: space.target for space in report.spaces for group in space.groups}
    for name, group in report.groups.items():
        where = f" -> {targets[name]}" if targets.get(name, name) != name else ""
        print_line(console, f"{name}{where}", "bold")
        rows = domain_rows(group, sort)
        said = said_of_guests(row.newest for row in rows if row.newest is not None)
        print_columns(console, _COLUMNS, [_row(row, bars, said) for row in rows])
        for broken in group.broken:
            print_line(console, not_counted_in_words(broken), BAD)
        print_line(console, _totals(report, name, group, rows))
    for event in report.others:
        style = BAD if isinstance(event, TargetUnreadable) else LOOK
        print_line(console, not_counted_in_words(event), style)


def _row(row: DomainRow, bars: str, said: frozenset[str]) -> Row:
    newest = row.newest
    broken = f" +{row.broken} broken" if row.broken else ""
    shown = {"domain": row.domain, "backups": f"{row.backups}{broken}"}
    if newest is None:
        return {**shown, "state": "broken" if row.broken else _NONE}
    return {
        **shown,
        "domain": newest.domain,
        **guest_cells(newest, said),
        "newest good": "NONE" if row.is_damaged else local_date(newest),
        "age": age(max(0.0, newest.age_s)),
        "state": row.state,
        "verified": verified_day(newest),
        "stored": size(row.stored_bytes),
        "trend": "".join(_bars(row.added, bars)),
    }


def _bars(added: Sequence[int], bars: str) -> Iterator[str]:
    most = max(added, default=0)
    for number in added:
        yield bars[round(number / most * (len(bars) - 1))] if most else bars[0]


def _totals(report: ListingReport, name: str, group: ListedGroup, rows: Sequence[DomainRow]) -> str:
    broken = f", {len(group.broken)} BROKEN" if group.broken else ""
    stored_bytes = sum(row.stored_bytes for row in rows)
    free = [space.free_bytes for space in report.spaces if name in space.groups]
    left = f"; {size(free[0])} free" if free else ""
    counts = f"{count(len(rows), 'domain')}, {count(group.backups, 'backup')}{broken}"
    return f"{counts}, {size(stored_bytes)} stored{left}"

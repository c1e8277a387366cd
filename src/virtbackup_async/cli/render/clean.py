"""Prints what ``clean`` did, or under ``--dry-run`` would do: a table, and the totals.

::

    domain  backup                 verdict  stored   why
    web     20260601-030000_3_web  goes     4.1 GiB  no rule keeps it
    web     20260701-030000_3_web  stays    4.0 GiB  newest, first of day 2026-07-01

    1 backup would be removed, 4.1 GiB freed
"""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from virtbackup_async import events
from virtbackup_async.cli.render.console import BAD, GOOD, LOOK
from virtbackup_async.model.amounts import size
from virtbackup_async.reporting.reports.clean import CleanReport, PinReport
from virtbackup_async.reporting.sentences import clean_in_words, unclaimed_in_words
from virtbackup_async.reporting.text import count, printable

_GOES, _STAYS, _UNDONE = "goes", "stays", "undone"
_STYLES = {_GOES: LOOK, _STAYS: GOOD, _UNDONE: LOOK}
_PLANNED = ("domain", "backup", "verdict", "stored", "why")
_REMOVED = ("domain", "backup", "freed")


def print_clean(
    report: CleanReport, console: Console, summary: events.Summary, *, only_rest: bool = False
) -> None:
    """Print the plan, or what was removed and undone."""
    if report.dry_run:
        _print_plan(report, console)
    elif report.removed and not only_rest:
        rows = [(done.domain, done.backup, size(done.freed_bytes)) for done in report.removed]
        console.print(_table(_REMOVED, rows))
    for event in (*(() if only_rest else report.others), *report.swept):
        style = BAD if isinstance(event, events.PendingLeft | events.RemovalFailed) else ""
        console.print(Text(printable(clean_in_words(event) or ""), style), soft_wrap=True)
    for left in report.unclaimed:
        console.print(Text(printable(unclaimed_in_words(left)), LOOK), soft_wrap=True)
    if summary.ok or report.removed or report.others:
        console.print(Text(_totals(report)), soft_wrap=True)


def _print_plan(report: CleanReport, console: Console) -> None:
    rows = [
        (found.domain, found.backup, _UNDONE, "", "was started and not finished")
        for found in report.found
    ]
    rows += [
        (
            verdict.domain,
            verdict.backup,
            _verdict(verdict),
            size(_stored_bytes(verdict)),
            ", ".join(verdict.reasons),
        )
        for verdict in report.verdicts
    ]
    if rows:
        console.print(_table(_PLANNED, rows))


def _totals(report: CleanReport) -> str:
    removed = "would be removed" if report.dry_run else "removed"
    words = [f"{count(report.backups_removed, 'backup')} {removed}"]
    words += [f"{report.backups_undone} broken undone"] if report.backups_undone else []
    freed_bytes = report.freed_bytes
    words += [f"{'unknown' if freed_bytes is None else size(freed_bytes)} freed"]
    words += [f"{report.damaged_kept} DAMAGED and not counted"] if report.damaged_kept else []
    return ", ".join(words)


def print_pins(report: PinReport, console: Console, _summary: events.Summary) -> None:
    """Print a line for each backup that is pinned, or is pinned no more."""
    for event in report.changed:
        console.print(Text(printable(clean_in_words(event) or "")), soft_wrap=True)


def _stored_bytes(verdict: events.CleanVerdict) -> int:
    """Return what a backup added to its target; virt-backup records none: what its files take."""
    return verdict.occupied_bytes if verdict.stored_bytes is None else verdict.stored_bytes


def _verdict(verdict: events.CleanVerdict) -> str:
    return _STAYS if verdict.keep else _GOES


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell), _STYLES.get(cell, "")) for cell in row))
    return table

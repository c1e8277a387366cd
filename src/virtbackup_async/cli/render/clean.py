"""Prints what ``clean`` did, or under ``--dry-run`` would do: a table, and the totals.

::

    domain  backup                 verdict  stored   why
    web     20260601-030000_3_web  goes     4.1 GiB  no rule keeps it
    web     20260701-030000_3_web  stays    4.0 GiB  newest, first of day 2026-07-01

    1 backup would be removed, 4.1 GiB freed
"""

from rich.console import Console

from virtbackup_async import events
from virtbackup_async.cli.render.columns import Column, Row, print_columns
from virtbackup_async.cli.render.console import BAD, GOOD, LOOK
from virtbackup_async.cli.render.lines import print_line
from virtbackup_async.model.amounts import size
from virtbackup_async.reporting.reports.clean import CleanReport, PinReport
from virtbackup_async.reporting.sentences import clean_in_words, unclaimed_in_words
from virtbackup_async.reporting.text import count

_GOES, _STAYS, _UNDONE = "goes", "stays", "undone"
_BAD = events.PendingLeft | events.RemovalFailed | events.CleanStopped
_STYLES = {_GOES: LOOK, _STAYS: GOOD, _UNDONE: LOOK}
_PLANNED = (
    Column("domain"),
    Column("backup"),
    Column("verdict", style=lambda verdict: _STYLES.get(verdict, "")),
    Column("stored"),
    Column("why", wraps=True),
)
_REMOVED = tuple(map(Column, ("domain", "backup", "freed")))


def print_clean(
    report: CleanReport, console: Console, summary: events.Summary, *, only_rest: bool = False
) -> None:
    """Print the plan, or what was removed and undone."""
    if report.dry_run:
        _print_plan(report, console)
    elif report.removed and not only_rest:
        print_columns(console, _REMOVED, list(map(_removed_row, report.removed)))
    for event in (*(() if only_rest else report.others), *report.swept):
        style = BAD if isinstance(event, _BAD) else ""
        print_line(console, clean_in_words(event) or "", style)
    for left in report.unclaimed:
        print_line(console, unclaimed_in_words(left), LOOK)
    if summary.ok or report.removed or report.others:
        print_line(console, _totals(report))


def _print_plan(report: CleanReport, console: Console) -> None:
    rows = [*map(_found_row, report.found), *map(_verdict_row, report.verdicts)]
    print_columns(console, _PLANNED, rows)


def _removed_row(done: events.BackupRemoved) -> Row:
    return {"domain": done.domain, "backup": done.backup, "freed": size(done.freed_bytes)}


def _found_row(found: events.PendingFound) -> Row:
    why = "was started and not finished"
    return {"domain": found.domain, "backup": found.backup, "verdict": _UNDONE, "why": why}


def _verdict_row(verdict: events.CleanVerdict) -> Row:
    return {
        "domain": verdict.domain,
        "backup": verdict.backup,
        "verdict": _STAYS if verdict.keep else _GOES,
        "stored": size(_stored_bytes(verdict)),
        "why": ", ".join(verdict.reasons),
    }


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
        print_line(console, clean_in_words(event) or "")


def _stored_bytes(verdict: events.CleanVerdict) -> int:
    """Return what a backup added to its target; virt-backup records none: what its files take."""
    return verdict.occupied_bytes if verdict.stored_bytes is None else verdict.stored_bytes

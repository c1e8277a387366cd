"""Prints the result of ``copy``, or of the copies that follow backups.

::

    domain  backup                 copied    was there  stored   duration
    web     20260701-030000_3_web  1.2 GiB   10.8 GiB   0.4 GiB  12 s

    failed: db: 20260701-030000_4_db: vda: 256.0 KiB at 512.0 KiB of ... are damaged
    1 backup copied to /mnt/usb, 29 were there, 1 FAILED: 1.2 GiB read, 0.4 GiB stored
"""

from collections.abc import Iterable, Iterator
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from virtbackup_async import events
from virtbackup_async.cli.render.console import BAD, FACT
from virtbackup_async.model.amounts import duration, size
from virtbackup_async.reporting.reports.copies import CopyReport
from virtbackup_async.reporting.sentences import copy_failed
from virtbackup_async.reporting.text import count, printable

_HEADS: Final = ("domain", "backup", "copied", "was there", "stored", "duration")


def print_copies(
    report: CopyReport, console: Console, summary: events.Summary, *, only_rest: bool = False
) -> None:
    """Print the copies, the failures and the totals; or what a dry run would copy."""
    if report.planned:
        console.print(_table(("domain", "backup", "used"), map(_planned, report.planned)))
    if report.done and not only_rest:
        console.print(_table(_HEADS, map(_row, report.done)))
    for skipped in report.skipped if report.planned else ():
        line = f"not copied: {skipped.domain}: {skipped.backup}: {skipped.reason}"
        console.print(Text(printable(line), FACT), soft_wrap=True)
    for failed in report.failed:
        what = f"{failed.domain}: {failed.backup}" if failed.backup else failed.domain
        line = f"{what}: copy to {failed.target} {copy_failed(failed)}"
        console.print(Text(printable(line), BAD), soft_wrap=True)
    if not report.is_empty or summary.ok:
        text = printable(", ".join(_totals(report)))
        console.print(Text(text, BAD if report.failed else ""), soft_wrap=True)


def _table(heads: Iterable[str], rows: Iterable[tuple[str, ...]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table


def _row(done: events.CopyDone) -> tuple[str, ...]:
    return (
        done.domain,
        done.backup,
        size(done.read_bytes),
        size(done.skipped_bytes),
        size(done.stored_bytes),
        duration(done.duration_s),
    )


def _planned(planned: events.CopyPlanned) -> tuple[str, ...]:
    return planned.domain, planned.backup, size(planned.data_bytes)


def _totals(report: CopyReport) -> Iterator[str]:
    targets = dict.fromkeys(one.target for one in report.done)
    targets |= dict.fromkeys(one.target for one in report.planned)
    where = f" to {', '.join(targets)}" if targets else ""
    if report.planned:
        yield f"{count(len(report.planned), 'backup')} would be copied{where}"
    else:
        yield f"{count(len(report.done), 'backup')} copied{where}"
    if report.skipped:
        yield f"{len(report.skipped)} skipped"
    if report.failed:
        yield f"{len(report.failed)} FAILED"
    if report.done:
        yield f"{size(sum(one.read_bytes for one in report.done))} read"
        yield f"{size(sum(one.skipped_bytes for one in report.done))} were there"
        yield f"{size(sum(one.stored_bytes for one in report.done))} stored"

"""Prints what ``verify`` and ``repair`` found: a line for each backup, the damaged ones last.

::

    web: 20260701-030000_3_web: good
    db: 20260701-030000_4_db: FAILED: bytes 524288 to 786431 of 2026..._vda.raw are lost

    domain  backup                disk  lost       from    to
    db      20260701-030000_4_db  vda   256.0 KiB  524288  786431

    /mnt/backups: repository: pack is damaged: ...: chunk 71f0... is damaged (1 chunk)
    /mnt/backups: repository: 81920 chunks checked, 1 DAMAGED: 9.8 GiB in 21 s
    2 backups verified: 1 good, 1 FAILED
"""

from collections.abc import Iterator
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from virtbackup_async.cli.render.console import BAD, GOOD, LOOK
from virtbackup_async.events import (
    DiskDamaged,
    RepositoryDamaged,
    Summary,
)
from virtbackup_async.model.amounts import size
from virtbackup_async.reporting.reports.verify import VerifyReport
from virtbackup_async.reporting.sentences import found_good, in_words
from virtbackup_async.reporting.text import count, printable

_RANGES_A_DISK: Final = 16
_HEADS = ("domain", "backup", "disk", "lost", "from", "to")


def print_verify(
    report: VerifyReport, console: Console, summary: Summary, *, only_rest: bool = False
) -> None:
    """Print a line for each backup, the lost bytes of the damaged ones, and the counts."""
    good_ones = [] if only_rest else report.done
    for good in sorted(good_ones, key=lambda event: (event.domain, event.backup)):
        style = LOOK if good.lacks else GOOD
        _print(console, f"{good.domain}: {good.backup}: {found_good(good)}", style)
    for bad in report.failed:
        _print(console, f"{bad.domain}: {bad.backup}: FAILED: {bad.error}", BAD)
    if report.disks:
        console.print(_lost_table(report.disks))
    for event in report.repositories:
        if only_rest and isinstance(event, RepositoryDamaged):
            continue
        style = BAD if isinstance(event, RepositoryDamaged) else ""
        _print(console, in_words(event) or "", style)
    if report.done or report.failed or summary.ok:
        _print(console, _totals(report), BAD if report.failed else "")


def _totals(report: VerifyReport) -> str:
    has_read = report.quick < len(report.done)
    words = [f"{report.good} good"] if has_read else []
    words += [f"{report.quick} complete, not read"] if report.quick else []
    words += [f"{report.without_digest} readable, no digest"] if report.without_digest else []
    words += [f"{len(report.failed)} FAILED"] if report.failed else []
    words += [f"{report.lacking} LACKING disks or state"] if report.lacking else []
    total = count(len(report.done) + len(report.failed), "backup")
    return f"{total} verified: {', '.join(words) or 'none was chosen'}"


def _lost_table(disks: list[DiskDamaged]) -> Table:
    """Return a table of the lost bytes of each image."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for head in _HEADS:
        table.add_column(head, overflow="fold")
    for disk in disks:
        for row in _rows(disk):
            table.add_row(*(Text(printable(cell)) for cell in row))
    return table


def _rows(disk: DiskDamaged) -> Iterator[tuple[str, ...]]:
    name = (disk.domain, disk.backup, disk.disk, size(disk.lost_bytes))
    for start, length in disk.ranges[:_RANGES_A_DISK]:
        yield *name, str(start), str(start + length - 1)
        name = ("", "", "", "")
    more = len(disk.ranges[_RANGES_A_DISK:]) + disk.more_ranges
    if more:
        yield "", "", "", "", f"and {more} more", ""


def _print(console: Console, text: str, style: str = "") -> None:
    console.print(Text(printable(text), style), soft_wrap=True)

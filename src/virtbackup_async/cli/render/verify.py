"""Prints what ``verify`` and ``repair`` found: a line for each backup, the damaged ones last.

::

    web: 20260701-030000_3_web: good
    db: 20260701-030000_4_db: FAILED: bytes 524288 to 786431 of 2026..._vda.raw are lost

    domain  backup                dev  lost       from    to
    db      20260701-030000_4_db  vda  256.0 KiB  524288  786431

    /mnt/backups: repository: pack is damaged: ...: chunk 71f0... is damaged (1 chunk)
    /mnt/backups: repository: 81920 chunks checked, 1 DAMAGED: 9.8 GiB in 21 s
    2 backups verified: 1 good, 1 FAILED
"""

from collections.abc import Iterator
from typing import Final

from rich.console import Console

from virtbackup_async.cli.render.columns import Column, Row, print_columns
from virtbackup_async.cli.render.console import BAD, GOOD, LOOK
from virtbackup_async.cli.render.lines import print_line
from virtbackup_async.events import (
    DiskDamaged,
    RepositoryDamaged,
    Summary,
)
from virtbackup_async.model.amounts import size
from virtbackup_async.reporting.reports.verify import VerifyReport
from virtbackup_async.reporting.sentences import found_good, in_words
from virtbackup_async.reporting.text import count

_RANGES_A_DISK: Final = 16
_HEADS = ("domain", "backup", "dev", "lost", "from", "to")
_COLUMNS = tuple(map(Column, _HEADS))


def print_verify(
    report: VerifyReport, console: Console, summary: Summary, *, only_rest: bool = False
) -> None:
    """Print a line for each backup, the lost bytes of the damaged ones, and the counts."""
    good_ones = [] if only_rest else report.done
    for good in sorted(good_ones, key=lambda event: (event.domain, event.backup)):
        style = LOOK if good.lacks else GOOD
        print_line(console, f"{good.domain}: {good.backup}: {found_good(good)}", style)
    for bad in report.failed:
        print_line(console, f"{bad.domain}: {bad.backup}: FAILED: {bad.error}", BAD)
    if report.disks:
        print_columns(console, _COLUMNS, [row for disk in report.disks for row in _rows(disk)])
    for event in report.repositories:
        if only_rest and isinstance(event, RepositoryDamaged):
            continue
        style = BAD if isinstance(event, RepositoryDamaged) else ""
        print_line(console, in_words(event) or "", style)
    if report.done or report.failed or summary.ok:
        print_line(console, _totals(report), BAD if report.failed else "")


def _totals(report: VerifyReport) -> str:
    has_read = report.quick < len(report.done)
    words = [f"{report.good} good"] if has_read else []
    unread = report.quick - report.partly
    words += [f"{report.partly} complete, read in part"] if report.partly else []
    words += [f"{unread} complete, not read"] if unread else []
    words += [f"{report.without_digest} readable, no digest"] if report.without_digest else []
    words += [f"{len(report.failed)} FAILED"] if report.failed else []
    words += [f"{report.lacking} LACKING disks or state"] if report.lacking else []
    total = count(len(report.done) + len(report.failed), "backup")
    return f"{total} verified: {', '.join(words) or 'none was chosen'}"


def _rows(disk: DiskDamaged) -> Iterator[Row]:
    """Yield the lost bytes of an image; its names stand in the first row alone."""
    name = (disk.domain, disk.backup, disk.disk, size(disk.lost_bytes))
    for start, length in disk.ranges[:_RANGES_A_DISK]:
        yield _row(*name, str(start), str(start + length - 1))
        name = ("", "", "", "")
    more = len(disk.ranges[_RANGES_A_DISK:]) + disk.more_ranges
    if more:
        yield _row("", "", "", "", f"and {more} more", "")


def _row(*cells: str) -> Row:
    return dict(zip(_HEADS, cells, strict=True))

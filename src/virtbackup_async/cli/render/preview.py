"""Prints what ``backup --dry-run`` found out: a table of disks, and a line for each target.

::

    group  domain  dev  method  disk      read     how
    main   web     vda  pull    20.0 GiB  1.2 GiB  changes since 20260701-030000_3_web
    main   web     vdb  pull    10.0 GiB  4.0 GiB  in full: a raw image cannot keep a dirty bitmap
    /mnt/backups: 1 backup, up to 5.2 GiB to read, 49.8 GiB free: fits
"""

from rich.console import Console

from virtbackup_async.cli.render.columns import Column, Row, print_columns
from virtbackup_async.cli.render.console import BAD, GOOD, LOOK
from virtbackup_async.cli.render.lines import print_line
from virtbackup_async.events import DiskPlanned, Summary, TargetPlanned
from virtbackup_async.model.amounts import size
from virtbackup_async.reporting.reports.preview import PreviewReport
from virtbackup_async.reporting.sentences import reason
from virtbackup_async.reporting.text import count

_UNKNOWN = "unknown"
_COLUMNS = (
    *map(Column, ("group", "domain", "dev", "method", "disk", "read")),
    Column("how", wraps=True),
)


def print_preview(report: PreviewReport, console: Console, _summary: Summary) -> None:
    """Print the plan."""
    print_columns(console, _COLUMNS, list(map(_row, report.disks)))
    for failed in report.failed:
        print_line(console, f"{failed.domain}: would fail: {reason(failed)}", BAD)
    for target in report.targets:
        print_line(console, *_of_target(target))


def _row(disk: DiskPlanned) -> Row:
    how = f"changes since {disk.base}" if disk.incremental else f"in full: {disk.reason}"
    return {
        "group": disk.group,
        "domain": disk.domain,
        "dev": disk.disk,
        "method": disk.method,
        "disk": _amount(disk.size_bytes),
        "read": _amount(disk.read_bytes),
        "how": how,
    }


def _amount(length_bytes: int | None) -> str:
    return _UNKNOWN if length_bytes is None else size(length_bytes)


def _of_target(target: TargetPlanned) -> tuple[str, str]:
    """Return the line of a target, and its style."""
    if target.free_bytes is None:
        return f"{_work_of(target)}; how much is free is not known", LOOK
    verdict, style = {
        True: ("fits", GOOD),
        False: ("DOES NOT FIT", BAD),
        None: ("may not fit", LOOK),
    }[target.fits]
    words = f"{_work_of(target)}, {size(target.free_bytes)} free: {verdict}"
    return words, style


def _work_of(target: TargetPlanned) -> str:
    backups = count(target.backups, "backup")
    return f"{target.target}: {backups}, up to {size(target.read_bytes)} to read"

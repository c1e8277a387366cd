"""Prints how much of each disk changed between two backups.

::

    web: 20260630-030000_3_web to 20260701-030000_3_web
    dev  changed    disk      used      used before
    vda  310.0 MiB  40.0 GiB  20.1 GiB  20.0 GiB
    310.0 MiB changed
"""

from rich.console import Console

from virtbackup_async import events
from virtbackup_async.cli.render.columns import Column, Row, print_columns, size_or_blank
from virtbackup_async.cli.render.console import LOOK
from virtbackup_async.cli.render.lines import print_line
from virtbackup_async.model.amounts import size
from virtbackup_async.reporting.reports.diff import DiffReport

_COLUMNS = (
    Column("dev"),
    Column("changed"),
    Column("disk"),
    Column("used"),
    Column("used before"),
    Column("", style=lambda _: LOOK, wraps=True),
)


def print_diff(report: DiffReport, console: Console, summary: events.Summary) -> None:
    """Print a row for each disk, and the sum."""
    if not report.disks:
        return
    first = report.disks[0]
    print_line(console, f"{first.domain}: {first.older} to {first.newer}", "bold")
    print_columns(console, _COLUMNS, [_row(disk) for disk in report.disks])
    if summary.ok:
        print_line(console, f"{size(report.changed_bytes)} changed")


def _row(disk: events.DiskCompared) -> Row:
    is_qcow2 = disk.format == "qcow2" and disk.changed_bytes
    return {
        "dev": disk.disk,
        "changed": size_or_blank(disk.changed_bytes),
        "disk": size_or_blank(disk.newer_size_bytes),
        "used": size_or_blank(disk.newer_data_bytes),
        "used before": size_or_blank(disk.older_data_bytes),
        "": disk.reason or ("of the qcow2 image, its tables included" if is_qcow2 else ""),
    }

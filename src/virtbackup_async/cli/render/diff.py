"""Prints how much of each disk changed between two backups.

::

    web: 20260630-030000_3_web to 20260701-030000_3_web
    disk  changed    used      before    of
    vda   310.0 MiB  20.1 GiB  20.0 GiB  40.0 GiB
    310.0 MiB changed
"""

from rich.console import Console
from rich.text import Text

from virtbackup_async import events
from virtbackup_async.cli.render.columns import Column, Row, print_columns, size_or_blank
from virtbackup_async.cli.render.console import LOOK
from virtbackup_async.model.amounts import size
from virtbackup_async.reporting.reports.diff import DiffReport
from virtbackup_async.reporting.text import printable

_COLUMNS = (
    Column("disk"),
    Column("changed"),
    Column("used"),
    Column("before"),
    Column("of"),
    Column("", style=lambda _: LOOK),
)


def print_diff(report: DiffReport, console: Console, summary: events.Summary) -> None:
    """Print a row for each disk, and the sum."""
    if not report.disks:
        return
    first = report.disks[0]
    head = f"{first.domain}: {first.older} to {first.newer}"
    console.print(Text(printable(head), "bold"), soft_wrap=True)
    print_columns(console, _COLUMNS, [_row(disk) for disk in report.disks])
    if summary.ok:
        console.print(Text(f"{size(report.changed_bytes)} changed"), soft_wrap=True)


def _row(disk: events.DiskCompared) -> Row:
    is_qcow2 = disk.format == "qcow2" and disk.changed_bytes
    return {
        "disk": disk.disk,
        "changed": size_or_blank(disk.changed_bytes),
        "used": size_or_blank(disk.newer_data_bytes),
        "before": size_or_blank(disk.older_data_bytes),
        "of": size_or_blank(disk.newer_size_bytes),
        "": disk.reason or ("of the qcow2 image, its tables included" if is_qcow2 else ""),
    }

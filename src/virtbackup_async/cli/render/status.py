"""Prints the one line of ``check``, and the past runs of ``log``.

::

    started              command  took      result
    2026-07-01 03:00:00  backup   4 min 2 s  ok: 12 domains, 41.2 GiB read, 1.2 GiB stored
    2026-06-30 03:00:00  backup   31 s       exit 3: db failed; 1 of 12 backups failed
"""

from collections.abc import Iterator
from datetime import datetime

from rich.console import Console

from virtbackup_async import events
from virtbackup_async.cli.render.columns import Column, Row, print_columns
from virtbackup_async.cli.render.console import BAD, GOOD
from virtbackup_async.cli.render.lines import print_line
from virtbackup_async.model.amounts import duration, size
from virtbackup_async.reporting.reports.status import HealthReport, LogReport
from virtbackup_async.reporting.text import count

_OK = "ok"
_NAMES_SHOWN = 5
RUN_COLUMNS = (
    Column("started"),
    Column("command"),
    Column("took"),
    Column("host", may_go=True),
    Column("result", style=lambda result: GOOD if result.startswith(_OK) else BAD, wraps=True),
)


def print_health(report: HealthReport, console: Console, _summary: events.Summary) -> None:
    """Print the line, and nothing else: a monitoring reads it."""
    if report.health is not None:
        print_line(console, report.health.message)


def print_log(report: LogReport, console: Console, summary: events.Summary) -> None:
    """Print the runs, or that there is none."""
    if not report.runs and summary.ok:
        print_line(console, "no run is known yet")
    print_columns(console, RUN_COLUMNS, [run_row(run) for run in report.runs])


def run_row(run: events.ListedRun) -> Row:
    """Return the row of a run."""
    return {
        "started": f"{datetime.fromisoformat(run.start).astimezone():%Y-%m-%d %H:%M:%S}",
        "command": run.command,
        "took": duration(run.duration_s),
        "host": run.host,
        "result": _result(run),
    }


def _result(run: events.ListedRun) -> str:
    amounts = ", ".join(_amounts(run))
    if run.exit_code == 0:
        return f"{_OK}: {amounts}" if amounts else _OK
    names = ", ".join(run.failed[:_NAMES_SHOWN])
    more = f" and {len(run.failed) - _NAMES_SHOWN} more" if len(run.failed) > _NAMES_SHOWN else ""
    failed = f"{names}{more} failed" if names else ""
    words = "; ".join(filter(None, (failed, run.error, amounts)))
    return f"exit {run.exit_code}: {words}" if words else f"exit {run.exit_code}"


def _amounts(run: events.ListedRun) -> Iterator[str]:
    if run.done:
        yield count(len(run.done), "domain")
    if run.read_bytes:
        yield f"{size(run.read_bytes)} read"
    if run.stored_bytes:
        yield f"{size(run.stored_bytes)} stored"
    if run.removed:
        yield f"{count(run.removed, 'backup')} removed"

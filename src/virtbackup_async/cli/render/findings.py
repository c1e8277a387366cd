"""Prints the findings of ``doctor`` and ``config check``, the gravest first.

::

    problem  web          vda: image cannot be read: /images/web.qcow2: Permission denied
                          -> Check that it exists on this host, and run as a user that may read it.
    ok       /srv/backup  can be written to
    1 problem, 0 warnings, 12 checks
"""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from virtbackup_async.cli.render.console import BAD, GOOD, LOOK
from virtbackup_async.events import Finding, Level, Summary
from virtbackup_async.reporting.reports.findings import FindingsReport
from virtbackup_async.reporting.text import count, printable

_GRAVEST_FIRST = (Level.PROBLEM, Level.WARNING, Level.INFO, Level.OK)
_STYLES = {Level.PROBLEM: BAD, Level.WARNING: LOOK, Level.INFO: "", Level.OK: GOOD}


def print_findings(
    report: FindingsReport, console: Console, _summary: Summary, *, all_shown: bool, counted: str
) -> None:
    """Print the findings by level, within each level in the order they came.

    Args:
        report: the findings.
        console: stdout.
        all_shown: print all levels; else problems and warnings alone.
        counted: the noun for all findings together.
    """
    if not report.findings:
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for _ in range(3):
        table.add_column(overflow="fold")
    for level in _GRAVEST_FIRST if all_shown else _GRAVEST_FIRST[:2]:
        for finding in report.of(level):
            _add(table, finding)
    if table.rows:
        console.print(table)
    if all_shown:
        console.print(_totals(report, counted))


def _totals(report: FindingsReport, counted: str) -> Text:
    counts = [
        count(len(report.of(Level.PROBLEM)), "problem"),
        count(len(report.of(Level.WARNING)), "warning"),
        count(len(report.findings), counted),
    ]
    return Text(", ".join(counts))


def _add(table: Table, finding: Finding) -> None:
    level = Text(finding.level, style=_STYLES[finding.level])
    table.add_row(level, Text(printable(finding.subject)), Text(printable(finding.message)))
    if finding.advice and finding.level is not Level.OK:
        advice = "\n".join(map(printable, finding.advice.split("\n")))
        table.add_row("", "", Text(f"-> {advice}"))

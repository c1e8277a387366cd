"""Prints the findings of ``doctor`` and ``config check``, the gravest first.

::

    problem  web          vda: image cannot be read: /images/web.qcow2: Permission denied
                          -> Check that it exists on this host, and run as a user that may read it.
    warning  db, mail     has no backup in group main yet
                          -> Run `virtbackup backup main`.
    1 problem, 2 warnings, 12 checks; 9 are ok: -v lists them
"""

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from virtbackup_async.cli.render.console import BAD, GOOD, LOOK
from virtbackup_async.events import Finding, Level, Summary
from virtbackup_async.reporting.reports.findings import FindingsReport, Shown
from virtbackup_async.reporting.sentences import NAMES_SHOWN
from virtbackup_async.reporting.text import count, printable

_STYLES = {Level.PROBLEM: BAD, Level.WARNING: LOOK, Level.INFO: "", Level.OK: GOOD}


def print_findings(
    report: FindingsReport, console: Console, _summary: Summary, *, shown: Shown, counted: str
) -> None:
    """Print the findings by level, within each level in the order they came.

    Args:
        report: the findings.
        console: stdout.
        shown: which of them, and how.
        counted: the noun for all findings together.
    """
    if not report.findings:
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for _ in range(3):
        table.add_column(overflow="fold")
    for level in shown.levels:
        for subjects, finding in _rows(report.of(level), is_folded=shown is not Shown.ALL):
            _add(table, subjects, finding)
    if table.rows:
        console.print(table)
    if shown is not Shown.WRONG:
        console.print(_totals(report, counted, shown))


def _rows(findings: Sequence[Finding], *, is_folded: bool) -> Iterator[tuple[str, Finding]]:
    """Yield the subjects of a row, and one of its findings; equal ones of many subjects are one."""
    if not is_folded:
        yield from ((finding.subject, finding) for finding in findings)
        return
    alike: dict[tuple[str, str | None], list[Finding]] = {}
    for finding in findings:
        alike.setdefault((finding.message, finding.advice), []).append(finding)
    for same in alike.values():
        names = list(dict.fromkeys(finding.subject for finding in same))
        more = len(names) - NAMES_SHOWN
        words = ", ".join(names[:NAMES_SHOWN])
        yield f"{words} and {more} more" if more > 0 else words, same[0]


def _totals(report: FindingsReport, counted: str, shown: Shown) -> Text:
    counts = [
        count(len(report.of(Level.PROBLEM)), "problem"),
        count(len(report.of(Level.WARNING)), "warning"),
        count(len(report.findings), counted),
    ]
    words = ", ".join(counts)
    good = len(report.of(Level.OK))
    if good and shown is Shown.FOLDED:
        words += (
            f"; {good} {'is' if good == 1 else 'are'} ok: -v lists {'it' if good == 1 else 'them'}"
        )
    return Text(words)


def _add(table: Table, subjects: str, finding: Finding) -> None:
    level = Text(finding.level, style=_STYLES[finding.level])
    table.add_row(level, Text(printable(subjects)), Text(printable(finding.message)))
    if finding.advice and finding.level is not Level.OK:
        advice = "\n".join(map(printable, finding.advice.split("\n")))
        table.add_row("", "", Text(f"-> {advice}"))

"""Prints the findings of ``doctor`` and ``config check``, the gravest last, next to the prompt.

::

    warning  db, mail: has no backup in group main yet
             -> Run `virtbackup backup main`.
    problem  web: vda: image cannot be read: /images/web.qcow2: Permission denied
             -> Check that it exists on this host, and run as a user that may read it.
    1 problem, 2 warnings, 12 checks; 9 are ok: -v lists them
"""

from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Console

from virtbackup_async.cli.render.console import BAD, GOOD, LOOK
from virtbackup_async.cli.render.lines import print_line
from virtbackup_async.events import Finding, Level, Summary
from virtbackup_async.reporting.reports.findings import FindingsReport, Shown
from virtbackup_async.reporting.sentences import some_of
from virtbackup_async.reporting.text import count

_STYLES: Final = {Level.PROBLEM: BAD, Level.WARNING: LOOK, Level.INFO: "", Level.OK: GOOD}
_WIDTH: Final = len("problem  ")


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
    for level in shown.levels:
        for subjects, finding in _rows(report.of(level), is_folded=shown is not Shown.ALL):
            _print(console, subjects, finding)
    if shown is not Shown.WRONG:
        print_line(console, _totals(report, counted, shown))


def _rows(findings: Sequence[Finding], *, is_folded: bool) -> Iterator[tuple[str, Finding]]:
    """Yield the subjects of a line, and one of its findings; equal ones share a line."""
    if not is_folded:
        yield from ((finding.subject, finding) for finding in findings)
        return
    alike: dict[tuple[str, str | None], list[Finding]] = {}
    for finding in findings:
        alike.setdefault((finding.message, finding.advice), []).append(finding)
    for same in alike.values():
        yield some_of(list(dict.fromkeys(finding.subject for finding in same))), same[0]


def _print(console: Console, subjects: str, finding: Finding) -> None:
    head, style = f"{finding.level:<{_WIDTH}}", _STYLES[finding.level]
    print_line(console, f"{subjects}: {finding.message}", head=head, head_style=style)
    if finding.advice and finding.level is not Level.OK:
        first, *others = finding.advice.split("\n")
        for line in (f"-> {first}", *others):
            print_line(console, line, head=" " * _WIDTH)


def _totals(report: FindingsReport, counted: str, shown: Shown) -> str:
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
    return words

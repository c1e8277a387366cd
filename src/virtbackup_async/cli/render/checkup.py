"""The findings of ``doctor`` and ``config check`` in text, the gravest first.

::

    problem  web          vda: image cannot be read: /images/web.qcow2: Permission denied
                          -> Check that it exists on this host, and run as a user that may read it.
    ok       /srv/backup  can be written to
    1 problem, 0 warnings, 12 checks
"""

from msgspec import Struct, field
from rich.console import Console
from rich.table import Table
from rich.text import Text

from virtbackup_async.cli.render.palette import BAD, GOOD, LOOK
from virtbackup_async.events import Event, Finding, Level, Summary
from virtbackup_async.reporting.text import count, printable

_GRAVEST_FIRST = (Level.PROBLEM, Level.WARNING, Level.INFO, Level.OK)
_STYLES = {Level.PROBLEM: BAD, Level.WARNING: LOOK, Level.INFO: "", Level.OK: GOOD}


class Checkup(Struct):
    """Collects findings and prints them at the end.

    Attributes:
        all_is_shown: also what is well; else problems and warnings alone.
        counted: what all findings together are called.
    """

    all_is_shown: bool = True
    counted: str = "check"
    _findings: list[Finding] = field(default_factory=list)

    def add(self, event: Event) -> None:
        """Remember a finding; the other events pass."""
        if isinstance(event, Finding):
            self._findings.append(event)

    def print(self, console: Console, summary: Summary) -> None:  # noqa: ARG002 -- the protocol's
        """Write the findings by level, in each level as they were found."""
        if not self._findings:
            return
        shown = _GRAVEST_FIRST if self.all_is_shown else _GRAVEST_FIRST[:2]
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
        for _ in range(3):
            table.add_column(overflow="fold")
        for level in shown:
            for finding in self._of(level):
                _add(table, finding)
        if table.rows:
            console.print(table)
        if self.all_is_shown:
            console.print(self._totals())

    def _of(self, level: Level) -> list[Finding]:
        return [finding for finding in self._findings if finding.level is level]

    def _totals(self) -> Text:
        counts = [
            count(len(self._of(Level.PROBLEM)), "problem"),
            count(len(self._of(Level.WARNING)), "warning"),
            count(len(self._findings), self.counted),
        ]
        return Text(", ".join(counts))


def _add(table: Table, finding: Finding) -> None:
    level = Text(finding.level, style=_STYLES[finding.level])
    table.add_row(level, Text(printable(finding.subject)), Text(printable(finding.message)))
    if finding.advice and finding.level is not Level.OK:
        advice = "\n".join(map(printable, finding.advice.split("\n")))
        table.add_row("", "", Text(f"-> {advice}"))

"""The report of ``doctor`` and ``config check``: what they found."""

from enum import Enum

from msgspec import Struct, field

from virtbackup_async.events import Event, Finding, Level


class Shown(Enum):
    """Which findings a report shows, each level before the graver one.

    All but ``ALL`` have one row for what is equal of several subjects. ``FOLDED`` also counts what
    is ok.
    """

    ALL = (Level.OK, Level.INFO, Level.WARNING, Level.PROBLEM)
    FOLDED = (Level.INFO, Level.WARNING, Level.PROBLEM)
    WRONG = (Level.WARNING, Level.PROBLEM)

    @property
    def levels(self) -> tuple[Level, ...]:
        levels: tuple[Level, ...] = self.value
        return levels


class FindingsReport(Struct):
    """The findings, in the order of the events."""

    findings: list[Finding] = field(default_factory=list)

    def add(self, event: Event) -> None:
        """Collect a finding; ignore any other event."""
        if isinstance(event, Finding):
            self.findings.append(event)

    def of(self, level: Level) -> list[Finding]:
        """Return the findings of a level."""
        return [finding for finding in self.findings if finding.level is level]

"""The report of ``doctor`` and ``config check``: what they found."""

from msgspec import Struct, field

from virtbackup_async.events import Event, Finding, Level


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

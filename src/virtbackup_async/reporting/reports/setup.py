"""The report of ``init``: what was written, and what ``doctor`` says of it."""

from msgspec import Struct, field

from virtbackup_async.events import ConfigWritten, Event
from virtbackup_async.reporting.reports.findings import FindingsReport


class SetupReport(Struct):
    """The configuration that was written, None before; and the findings."""

    written: ConfigWritten | None = None
    findings: FindingsReport = field(default_factory=FindingsReport)

    def add(self, event: Event) -> None:
        """Collect what was written, and findings; ignore any other event."""
        if isinstance(event, ConfigWritten):
            self.written = event
        self.findings.add(event)

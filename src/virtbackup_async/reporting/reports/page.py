"""The report of ``report``: the page that was written."""

from msgspec import Struct, field

from virtbackup_async.events import Event, ReportWritten


class PageReport(Struct):
    """The pages, one in each run."""

    written: list[ReportWritten] = field(default_factory=list)

    def add(self, event: Event) -> None:
        """Collect a page; ignore any other event."""
        if isinstance(event, ReportWritten):
            self.written.append(event)

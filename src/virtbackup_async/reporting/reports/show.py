"""The report of ``show``."""

from msgspec import Struct

from virtbackup_async import events


class ShowReport(Struct):
    """All that is known of one backup; None if it was not found."""

    shown: events.ShownBackup | None = None

    def add(self, event: events.Event) -> None:
        """Collect the backup; ignore any other event."""
        if isinstance(event, events.ShownBackup):
            self.shown = event

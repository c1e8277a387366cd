"""The reports of ``check`` and ``log``."""

from msgspec import Struct, field

from virtbackup_async import events


class HealthReport(Struct):
    """The one line of ``check``."""

    health: events.HealthChecked | None = None

    def add(self, event: events.Event) -> None:
        """Collect the health; ignore any other event."""
        if isinstance(event, events.HealthChecked):
            self.health = event


class LogReport(Struct):
    """Past runs, the newest first."""

    runs: list[events.ListedRun] = field(default_factory=list)

    def add(self, event: events.Event) -> None:
        """Collect a run; ignore any other event."""
        if isinstance(event, events.ListedRun):
            self.runs.append(event)

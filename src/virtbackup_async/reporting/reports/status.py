"""The reports of ``check``, ``log`` and ``status``."""

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


class StatusReport(Struct):
    """How things are, and the last run of each command."""

    status: events.StatusShown | None = None
    runs: list[events.ListedRun] = field(default_factory=list)

    def add(self, event: events.Event) -> None:
        """Collect the status or a run; ignore any other event."""
        match event:
            case events.StatusShown():
                self.status = event
            case events.ListedRun():
                self.runs.append(event)
            case _:
                pass

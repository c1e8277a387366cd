"""The report of ``stats``: how much data the backups hold, and how much space they take."""

from msgspec import Struct, field

from virtbackup_async import events


class StatsReport(Struct):
    """The figures, each kind in the order of the events.

    Attributes:
        amounts: of each domain, and of each group of several domains.
        days: by group, the bytes that the backups of each day (``2026-07-01``) added.
        not_counted: what is missing from the figures.
    """

    amounts: list[events.DomainStats | events.GroupStats] = field(default_factory=list)
    days: dict[str, dict[str, int]] = field(default_factory=dict)
    backups: list[events.BackupStats] = field(default_factory=list)
    repositories: list[events.RepositoryStats] = field(default_factory=list)
    requests: list[events.PastRequests] = field(default_factory=list)
    not_counted: list[events.BrokenBackup | events.TargetUnreadable | events.UnclaimedBackups] = (
        field(default_factory=list)
    )

    def add(self, event: events.Event) -> None:
        """Collect a figure; ignore any other event."""
        match event:
            case events.DomainStats():
                self.amounts.append(event)
            case events.GroupStats(domains=domains) if domains > 1:
                self.amounts.append(event)
            case events.DayStats():
                self.days.setdefault(event.group, {})[event.day] = event.stored_bytes
            case events.BackupStats():
                self.backups.append(event)
            case events.RepositoryStats():
                self.repositories.append(event)
            case events.PastRequests():
                self.requests.append(event)
            case events.BrokenBackup() | events.TargetUnreadable() | events.UnclaimedBackups():
                self.not_counted.append(event)
            case _:
                pass

"""The report of ``stats``: how much data the backups hold, and how much space they take."""

from msgspec import Struct, field

from virtbackup_async.events import (
    BackupStats,
    BrokenBackup,
    DayStats,
    DomainStats,
    Event,
    GroupStats,
    RepositoryStats,
    TargetUnreadable,
    UnclaimedBackups,
)


class StatsReport(Struct):
    """The figures, each kind in the order of the events.

    Attributes:
        amounts: of each domain, and of each group of several domains.
        days: by group, the bytes that the backups of each day (``2026-07-01``) added.
        not_counted: what is missing from the figures.
    """

    amounts: list[DomainStats | GroupStats] = field(default_factory=list)
    days: dict[str, dict[str, int]] = field(default_factory=dict)
    backups: list[BackupStats] = field(default_factory=list)
    repositories: list[RepositoryStats] = field(default_factory=list)
    not_counted: list[BrokenBackup | TargetUnreadable | UnclaimedBackups] = field(
        default_factory=list
    )

    def add(self, event: Event) -> None:
        """Collect a figure; ignore any other event."""
        match event:
            case DomainStats():
                self.amounts.append(event)
            case GroupStats(domains=domains) if domains > 1:
                self.amounts.append(event)
            case DayStats():
                self.days.setdefault(event.group, {})[event.day] = event.stored_bytes
            case BackupStats():
                self.backups.append(event)
            case RepositoryStats():
                self.repositories.append(event)
            case BrokenBackup() | TargetUnreadable() | UnclaimedBackups():
                self.not_counted.append(event)
            case _:
                pass

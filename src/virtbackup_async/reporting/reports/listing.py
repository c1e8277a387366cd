"""The report of ``list``: the backups of each group, domain by domain."""

from datetime import datetime

from msgspec import Struct, field

from virtbackup_async import events

Domains = dict[str, list[events.ListedBackup]]
"""The backups of each domain; an empty list for a domain without any."""


class ListedGroup(Struct):
    """A group, its domains in the order of the events."""

    domains: Domains = field(default_factory=dict)
    broken: list[events.BrokenBackup] = field(default_factory=list)

    @property
    def backups(self) -> int:
        """How many complete backups the group has."""
        return sum(map(len, self.domains.values()))

    def sorted(self) -> Domains:
        """Return the domains by name, the backups of each newest first."""
        return {name: _newest_first(backups) for name, backups in sorted(self.domains.items())}


class ListingReport(Struct):
    """What is listed.

    Attributes:
        groups: by name, in the order of the events.
        others: what no group can list.
    """

    groups: dict[str, ListedGroup] = field(default_factory=dict)
    others: list[events.TargetUnreadable | events.UnclaimedBackups] = field(default_factory=list)

    def add(self, event: events.Event) -> None:
        """Collect a backup, a domain without one, or what cannot be listed; ignore any other."""
        match event:
            case events.ListedBackup():
                self._group(event.group).domains.setdefault(event.domain, []).append(event)
            case events.ListedDomain():
                self._group(event.group).domains.setdefault(event.domain, [])
            case events.BrokenBackup():
                self._group(event.group).broken.append(event)
            case events.TargetUnreadable() | events.UnclaimedBackups():
                self.others.append(event)
            case _:
                pass

    def _group(self, name: str) -> ListedGroup:
        return self.groups.setdefault(name, ListedGroup())


def _newest_first(backups: list[events.ListedBackup]) -> list[events.ListedBackup]:
    return sorted(backups, key=lambda backup: datetime.fromisoformat(backup.date), reverse=True)

"""The report of ``list``: the backups of each group, domain by domain."""

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from math import inf
from typing import Any, Final

from msgspec import Struct, field

from virtbackup_async import events

Backups = list[events.ListedBackup]
Domains = dict[str, list[events.ListedBackup | events.BrokenBackup]]
"""All backups of each guest; an empty list for a domain without any."""


class ListedGroup(Struct):
    """A group, its guests in the order of the events.

    A guest is named by its domain, unless two guests of the target have that name.
    """

    domains: dict[str, Backups] = field(default_factory=dict)
    broken: list[events.BrokenBackup] = field(default_factory=list)

    @property
    def backups(self) -> int:
        """How many complete backups the group has."""
        return sum(map(len, self.domains.values()))

    @property
    def names(self) -> list[str]:
        """The names of the guests, sorted; also of those with broken backups alone."""
        return sorted({*self.domains, *(one.guest or one.domain for one in self.broken)})

    def sorted(self) -> Domains:
        """Return the guests by name, the backups of each newest first, broken ones among them."""
        broken: dict[str, list[events.BrokenBackup]] = {}
        for one in self.broken:
            broken.setdefault(one.guest or one.domain, []).append(one)
        return {
            name: sorted(
                [*self.domains.get(name, []), *broken.get(name, [])], key=_date, reverse=True
            )
            for name in self.names
        }


class DomainRow(Struct):
    """One guest of a group in a few words.

    Attributes:
        domain: its name; of two guests of one name, that with the host, or the UUID.
        newest: the newest backup that is not known to be damaged; else the newest; None if none
            can be read.
        is_damaged: ``newest`` is damaged, so no backup is good.
        backups: how many complete ones it has.
        broken: how many cannot be read.
        stored_bytes: what the backups added to the target.
        added: what each of the last ones added, oldest first.
    """

    domain: str
    newest: events.ListedBackup | None
    is_damaged: bool
    backups: int
    broken: int
    stored_bytes: int
    added: tuple[int, ...]

    @property
    def state(self) -> str:
        """The state of the domain: that of its newest good backup."""
        if self.newest is not None:
            return self.newest.state
        return "broken" if self.broken else "none"


_BY_STATE: Final = {"none": 0, "broken": 1, "damaged": 2, "unverified": 3, "good": 4}
SORTS: Final[Mapping[str, Callable[[DomainRow], Any]]] = {
    "name": lambda row: row.domain,
    "age": lambda row: -(row.newest.age_s if row.newest else inf),
    "count": lambda row: -row.backups,
    "stored": lambda row: -row.stored_bytes,
    "state": lambda row: (_BY_STATE.get(row.state, 0), row.domain),
}
"""How the domains of a list can be sorted: the worst, oldest or largest first."""
_TREND: Final = 10


def domain_rows(group: ListedGroup, sort: str = "name") -> list[DomainRow]:
    """Return a row for each domain of a group, also of those with broken backups alone."""
    broken = Counter(one.guest or one.domain for one in group.broken)
    rows = [_domain_row(name, group.domains.get(name, []), broken[name]) for name in group.names]
    return sorted(rows, key=SORTS[sort])


def _domain_row(domain: str, backups: Backups, broken: int) -> DomainRow:
    by_date = sorted(backups, key=_date)
    good = [backup for backup in by_date if backup.state != "damaged"]
    return DomainRow(
        domain,
        newest=next(iter((good or by_date)[-1:]), None),
        is_damaged=bool(by_date) and not good,
        backups=len(backups),
        broken=broken,
        stored_bytes=sum(backup.stored_bytes or 0 for backup in backups),
        added=tuple(backup.stored_bytes or 0 for backup in by_date[-_TREND:]),
    )


def _date(backup: events.ListedBackup | events.BrokenBackup) -> float:
    """Return when a backup was made; one whose name has no date counts as the oldest."""
    if backup.date is None:
        return -inf
    return backup.date_unix or datetime.fromisoformat(backup.date).timestamp()


class ListingReport(Struct):
    """What is listed.

    Attributes:
        groups: by name, in the order of the events.
        others: what no group can list.
        spaces: of the targets that can be read.
    """

    groups: dict[str, ListedGroup] = field(default_factory=dict)
    others: list[events.TargetUnreadable | events.UnclaimedBackups] = field(default_factory=list)
    spaces: list[events.TargetSpace] = field(default_factory=list)

    def add(self, event: events.Event) -> None:
        """Collect a backup, a domain without one, or what cannot be listed; ignore any other."""
        match event:
            case events.ListedBackup():
                guest = event.guest or event.domain
                self._group(event.group).domains.setdefault(guest, []).append(event)
            case events.ListedDomain():
                self._group(event.group).domains.setdefault(event.domain, [])
            case events.BrokenBackup():
                self._group(event.group).broken.append(event)
            case events.TargetSpace():
                self.spaces.append(event)
            case events.TargetUnreadable() | events.UnclaimedBackups():
                self.others.append(event)
            case _:
                pass

    def _group(self, name: str) -> ListedGroup:
        return self.groups.setdefault(name, ListedGroup())

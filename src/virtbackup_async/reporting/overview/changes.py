"""What has changed in the last days: guests, their disks, and the version of the program."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from virtbackup_async.model.facts import Facts, GuestFacts
from virtbackup_async.model.run_record import DomainRun, Outcome, RunRecord
from virtbackup_async.reporting.overview.days import recent
from virtbackup_async.reporting.overview.parts import Change
from virtbackup_async.reporting.overview.runs import Key

CHANGED_DAYS = 7
_SINCE_S = CHANGED_DAYS * 86_400


def changes_of(
    facts: Facts,
    runs: Sequence[RunRecord],
    attempts: Mapping[Key, Sequence[DomainRun]],
    names: Mapping[Key, str],
) -> tuple[Change, ...]:
    """Return the changes of the last days, the newest first.

    While nothing older is known, every guest would be a new one: then none is said to be.
    """
    since = facts.at - _SINCE_S
    dates = {guest.key: _dates(guest, attempts.get(guest.key, ())) for guest in facts.guests}
    oldest = min((min(known) for known in dates.values() if known), default=facts.at)
    found = [*_of_versions(runs)]
    for guest in facts.guests:
        key = guest.key
        known, name = dates[key], names[key]
        if not known:
            continue
        if oldest < since <= min(known):
            found.append(Change(min(known), f"{name}: its first backup that is known"))
        if guest.is_known is False:
            text = f"{name}: its last backup; libvirt does not know the domain any more"
            found.append(Change(max(known), text))
        found += _of_disks(guest, name, since)
    found = [change for change in found if since <= change.at <= facts.at]
    return tuple(sorted(found, key=lambda change: -change.at))


def _dates(guest: GuestFacts, attempts: Iterable[DomainRun]) -> list[float]:
    """Return the moments of the first and last backups of a guest, removed ones included."""
    done = (run.end for run in attempts if run.outcome == Outcome.DONE)
    broken = (one.date for one in guest.broken if one.date is not None)
    return [*(backup.date for backup in (*guest.backups[:1], *guest.backups[-1:])), *broken, *done]


def _of_disks(guest: GuestFacts, name: str, since: float) -> Iterator[Change]:
    # The backup before the first of these days is what that one is compared with.
    start = max(0, len(guest.backups) - len(recent(guest.backups, since)) - 1)
    for before, after in pairwise(guest.backups[start:]):
        old, new = set(before.disks), set(after.disks)
        if old and new:
            for disk in sorted(new - old):
                yield Change(after.date, f"{name}: {disk} is new")
            for disk in sorted(old - new):
                yield Change(after.date, f"{name}: {disk} is gone")


def _of_versions(runs: Iterable[RunRecord]) -> Iterator[Change]:
    last: dict[str, str] = {}
    for run in runs:
        before = last.get(run.host, run.version)
        if before != run.version:
            text = f"{run.host}: virtbackup {run.version}, {before} before"
            yield Change(run.start, text)
        last[run.host] = run.version

"""How much each guest adds to its target, and which adds more than usual.

::

    30 days before           the median of the days with a backup: usual
    ... the last 7 days      from the last day back: all that add at least twice as much

A guest that writes much more than usual might have a runaway log, or is being encrypted.
"""

from collections.abc import Iterable, Sequence
from statistics import fmean, median

from virtbackup_async.model.facts import BackupFacts
from virtbackup_async.model.run_record import DomainRun, Outcome
from virtbackup_async.reporting.overview.days import DAYS, LocalDays, recent
from virtbackup_async.reporting.overview.parts import Growth

WEEK = 7
_FACTOR = 2.0
_LEAST_BYTES = 64 << 20
_LEAST_DAYS = 5
_LEAST_USUAL_BYTES = 1 << 20


def added_by_day(
    backups: Sequence[BackupFacts], attempts: Iterable[DomainRun], days: LocalDays
) -> tuple[int, ...]:
    """Return the bytes that a guest added on each day, removed backups included."""
    added = [0] * DAYS
    seen = set()
    for backup in recent(backups, days.start_s):
        place = days.index(backup.date)
        if place is not None:
            seen.add(backup.name)
            added[place] += backup.stored_bytes
    for attempt in attempts:
        if attempt.outcome == Outcome.DONE and attempt.backup not in seen:
            place = days.index(attempt.end)
            if place is not None:
                added[place] += attempt.stored_bytes
    return tuple(added)


def growth_of(added: Sequence[int], days: LocalDays) -> Growth | None:
    """Return by how much more than usual a guest adds, if it is noticeable.

    The first day that has a backup does not count as usual, because that backup added everything.
    """
    first = next((place for place, amount in enumerate(added) if amount), len(added))
    before = [amount for amount in added[first + 1 : -WEEK] if amount]
    if len(before) < _LEAST_DAYS:
        return None
    usual = max(median(before), _LEAST_USUAL_BYTES)
    place = len(added)
    raised: list[int] = []
    # A day without a backup neither counts nor ends the growth.
    for at in range(len(added) - 1, len(added) - 1 - WEEK, -1):
        amount = added[at]
        if amount == 0:
            continue
        if amount < _FACTOR * usual or amount - usual < _LEAST_BYTES:
            break
        raised.append(amount)
        place = at
    if not raised:
        return None
    mean = fmean(raised)
    return Growth(mean / usual, days.first + place, mean, usual)

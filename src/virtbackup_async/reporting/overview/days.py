"""The heat map: the backup of a guest on each of the last days."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, tzinfo

from virtbackup_async.model.facts import BackupFacts, GuestFacts
from virtbackup_async.model.run_record import DomainRun, Outcome
from virtbackup_async.reporting.overview.parts import (
    NO_DAY,
    Day,
    DayKind,
    DaySum,
    GuestLine,
)

DAYS = 35
# The most important kind comes first.
_ORDER = (
    DayKind.DAMAGED,
    DayKind.FAILED,
    DayKind.UNKNOWN,
    DayKind.PARTIAL,
    DayKind.MADE,
    DayKind.VERIFIED,
    DayKind.EXPIRED,
    DayKind.NONE,
)


class LocalDays:
    """The last days of the local calendar, up to today.

    Attributes:
        first: the oldest one, as ``date.toordinal``.
        today: the last one.
    """

    def __init__(self, at: float, zone: tzinfo | None) -> None:
        self._zone = zone
        self.today = self.of(at)
        self.first = self.today - DAYS + 1
        self.start_s = at - (DAYS + 1) * 86_400
        """None of these days begins before this moment."""

    def of(self, date: float) -> int:
        """Return the day of a moment."""
        if self._zone is None:
            return datetime.fromtimestamp(date).toordinal()  # noqa: DTZ006 -- the local day
        return datetime.fromtimestamp(date, self._zone).toordinal()

    def index(self, date: float) -> int | None:
        """Return the index of a moment's day among the days; None if it is not one of them."""
        place = self.of(date) - self.first
        return place if 0 <= place < DAYS else None


def days_of(guest: GuestFacts, attempts: Sequence[DomainRun], days: LocalDays) -> tuple[Day, ...]:
    """Return the backup of a guest on each day.

    Args:
        guest: its backups, oldest first.
        attempts: those that the histories know, oldest first.
        days: which.
    """
    made: dict[int, list[BackupFacts]] = {}
    for backup in recent(guest.backups, days.start_s):
        place = days.index(backup.date)
        if place is not None:
            made.setdefault(place, []).append(backup)
    broken: dict[int, str] = {}
    for one in guest.broken:
        place = days.index(one.date) if one.date is not None else None
        if place is not None:
            broken[place] = one.error
    tried: dict[int, list[DomainRun]] = {}
    for attempt in attempts:
        place = days.index(attempt.end)
        if place is not None:
            tried.setdefault(place, []).append(attempt)
    if not (made or broken or tried):
        return (NO_DAY,) * DAYS
    return tuple(
        _day(made.get(place, ()), tried.get(place, ()), broken.get(place)) for place in range(DAYS)
    )


def recent(backups: Sequence[BackupFacts], start_s: float) -> Sequence[BackupFacts]:
    """Return the backups from a moment on; they are oldest first."""
    return backups[bisect_left(backups, start_s, key=lambda backup: backup.date) :]


def _day(backups: Sequence[BackupFacts], attempts: Sequence[DomainRun], broken: str | None) -> Day:
    if not (backups or attempts or broken):
        return NO_DAY
    good = [backup for backup in backups if backup.verified is not False]
    if good:
        return _made(good[-1], _run_of(good[-1], attempts), len(backups))
    if backups:
        return Day(DayKind.DAMAGED, backups[-1], None, len(backups), "verify found it damaged")
    if broken is not None:
        return Day(DayKind.DAMAGED, detail=broken)
    done = [one for one in attempts if one.outcome == Outcome.DONE]
    if done:
        return Day(DayKind.EXPIRED, None, done[-1])
    return Day(DayKind.FAILED, None, attempts[-1], detail=attempts[-1].error or "it failed")


def _run_of(backup: BackupFacts, attempts: Iterable[DomainRun]) -> DomainRun | None:
    return next((one for one in attempts if one.backup == backup.name), None)


def _made(backup: BackupFacts, run: DomainRun | None, backups: int) -> Day:
    wrong = "; ".join(imperfections(backup))
    perfect = DayKind.VERIFIED if backup.verified else DayKind.MADE
    return Day(DayKind.PARTIAL if wrong else perfect, backup, run, backups, wrong)


def imperfections(backup: BackupFacts) -> Iterator[str]:
    """Yield why a good backup is imperfect: it is not quiesced, or not complete."""
    if backup.not_quiesced is not None:
        yield f"not quiesced: {backup.not_quiesced}"
    for disk, reason in backup.lacks:
        yield f"{disk} is not in it: {reason}"


def sum_up(guests: Iterable[GuestLine], days: LocalDays) -> tuple[DaySum, ...]:
    """Return how many guests have which kind on each day, the most important kind first."""
    counts = [Counter[DayKind]() for _ in range(DAYS)]
    for guest in guests:
        for counter, day in zip(counts, guest.days, strict=True):
            counter[day.kind] += 1
    return tuple(
        DaySum(days.first + place, tuple((k, counter[k]) for k in _ORDER if counter[k]))
        for place, counter in enumerate(counts)
    )

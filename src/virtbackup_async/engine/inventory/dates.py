"""The meaning of a date that an admin types: one rule for all commands.

A date stands for the complete unit that it names, and means the last backup in it::

    2026-03             the month          2026-03-01 02:15      the minute
    2026-03-01          the day            2026-03-01 02:15:00   the second
    2026-03-01T02       the hour           20260301-021500       the second, as in a backup's name
    today, yesterday    the day            18:29, 18:29:07       the last time the clock showed it
    yesterday 18:29     the minute         3d, 12h, 30m, 4w      3 to 4 days ago, 12 to 13 hours ago
    latest              the newest backup

Without an offset it is local time. If that minute or second has no backup, it can also be UTC. Days
follow the calendar, so a day can have 23 or 25 hours. Ages are elapsed time: ``1d`` is 24 hours. An
age is rounded down, as everywhere in the program: ``3d`` is a backup that is shown as 3 days old.
"""

import re
import time as timezone
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, time, timedelta
from datetime import date as Day  # noqa: N812 -- `date` is the admin's text
from functools import cache
from typing import Final, Protocol, TypeVar

from msgspec import Struct

from virtbackup_async.errors import ConfigError
from virtbackup_async.model.amounts import age_of
from virtbackup_async.model.backup import Definition

CLOCK_SLACK_S: Final = 60
"""How far in the future a backup may be dated without a warning."""

LATEST: Final = "latest"
"""The newest backup, where a date is expected."""

DATE_HINT: Final = (
    "Write a date as 2026-03-01 02:15, 2026-03-01 or 2026-03; a time as 18:29; today or yesterday; "
    "an age as 12h, 7d or 4w; or give a backup's name."
)

_STAMP = "%Y%m%d-%H%M%S"
_STAMP_LENGTH = len("20260301-021500")
_NAME = re.compile(r"\d{8}-\d{6}_.+", re.DOTALL)
_MONTH = re.compile(r"(\d{4})-(\d{2})")
_WITH_TIME = re.compile(r"(\d{4}-?\d\d-?\d\d|\d{4}-?W\d\d-?\d)\D(\d\d)(:?\d\d)?(:?\d\d)?.*")
_NAMED_DAY = re.compile(r"(today|yesterday)(?:[ t](\d.*))?")
_CLOCK = re.compile(r"\d{1,2}:\d\d(:\d\d)?")
# By how many of hour, minute and second are given.
_UNITS_S = (3600, 60, 1)
_HOUR_S = _UNITS_S[0]
_A_DAY = timedelta(days=1)


class Dated(Protocol):
    """A backup, complete or not."""

    @property
    def date(self) -> int:
        """Seconds since the epoch."""

    @property
    def name(self) -> str:
        """The backup's name."""


T = TypeVar("T", bound=Dated)


class Span(Struct, frozen=True):
    """The moments from ``first`` on and before ``end``, in seconds since the epoch."""

    first: int
    end: int

    def __contains__(self, moment: int) -> bool:
        return self.first <= moment < self.end


def local_time(definition: Definition) -> datetime:
    """Return the moment of a backup, with the local offset of that day."""
    return time_of(definition.date)


def time_of(date: int) -> datetime:
    """Return a moment, given in seconds since the epoch, with the local offset of that day."""
    return datetime.fromtimestamp(date, UTC).astimezone()


def pasteable(moment: datetime) -> str:
    """Return a moment as ``2026-03-01 02:15:00``, which means it wherever a date is typed.

    It has an offset only in an hour that comes twice.
    """
    local = moment.astimezone()
    text = local.isoformat(" ", "seconds")
    day, without_offset = text[: len("2026-03-01")], text[: len("2026-03-01 02:15:00")]
    is_twice = _changes_the_clock(day, timezone.tzname) and _comes_twice(local)
    return text if is_twice else without_offset


@cache
def _changes_the_clock(day: str, _zone: tuple[str, str]) -> bool:
    """Return whether the local clock changes on a day; cached for lists with many backups a day."""
    midnight = datetime.fromisoformat(day)
    return midnight.astimezone().utcoffset() != (midnight + _A_DAY).astimezone().utcoffset()


def _comes_twice(moment: datetime) -> bool:
    naive = moment.replace(tzinfo=None)
    first, second = (naive.replace(fold=fold).astimezone().utcoffset() for fold in (0, 1))
    return first != second


def at_date(backups: Sequence[T], date: str, now: datetime | None = None) -> T | None:
    """Return the backup that ``date`` means: the one of that name, or the last in its unit.

    Args:
        backups: all of one domain, oldest first.
        date: a date as above, ISO 8601, or the backup's name.
        now: aware; None for the clock's time.

    Raises:
        ConfigError: the date cannot be understood.
    """
    named = [backup for backup in backups if _is_named(backup.name, date)]
    if named:
        return named[-1]
    if is_latest(date):
        return backups[-1] if backups else None
    for span in spans_of(date, now):
        inside = [backup for backup in backups if backup.date in span]
        if inside:
            return inside[-1]
    return None


def before_date(backups: Sequence[T], date: str, now: datetime | None = None) -> T | None:
    """Return the last backup before the end of the unit that ``date`` names.

    Raises:
        ConfigError: the date cannot be understood.
    """
    end = spans_of(date, now)[0].end
    before = [backup for backup in backups if backup.date < end]
    return before[-1] if before else None


def nearest(backups: Sequence[T], date: str, count: int, now: datetime | None = None) -> list[T]:
    """Return the backups nearest to a valid date, nearest first."""
    moment = spans_of(date, now)[0].first
    return sorted(backups, key=lambda backup: abs(backup.date - moment))[:count]


def start_of(date: str, now: datetime | None = None) -> int:
    """Return the moment from which ``--newer-than`` and similar options count.

    Returns:
        Seconds since the epoch: for a date, the first moment of its unit; for an age, the moment
        that long ago.

    Raises:
        ConfigError: the date cannot be understood.
    """
    age = age_of(date)
    if age is not None:
        return _now_s(now) - int(age.total_seconds())
    return spans_of(date, now)[0].first


def is_latest(date: str) -> bool:
    """Return whether a date stands for the newest backup."""
    return date.strip().lower() == LATEST


def date_of_name(name: str) -> int | None:
    """Return the moment in a backup's name, in seconds since the epoch; None if there is none."""
    try:
        moment = datetime.strptime(name[:_STAMP_LENGTH], _STAMP)  # noqa: DTZ007 -- local time
        return int(moment.timestamp())
    except (ValueError, OverflowError, OSError):
        return None


def spans_of(date: str, now: datetime | None = None) -> list[Span]:
    """Return the spans that ``date`` can mean, the most likely first; at least one.

    Args:
        date: a date as above, except ``latest``.
        now: aware; None for the clock's time.

    Raises:
        ConfigError: it cannot be understood.
    """
    try:
        return list(_spans_of(date.strip(), _now_s(now)))
    except (ValueError, OverflowError, OSError) as error:
        raise ConfigError(f"date {date!r} cannot be understood", hint=DATE_HINT) from error


def _now_s(now: datetime | None) -> int:
    return int((now or datetime.now(UTC)).timestamp())


def _spans_of(date: str, now_s: int) -> Iterator[Span]:
    if _NAME.fullmatch(date):
        # The name of a backup that no longer exists.
        date = date[:_STAMP_LENGTH]
    age, unit = age_of(date), age_of(f"1{date[-1:]}")
    if age is not None and unit is not None:
        end = now_s - int(age.total_seconds()) + 1
        yield Span(end - int(unit.total_seconds()), end)
        return
    if _CLOCK.fullmatch(date):
        yield from _last_time(date, now_s)
        return
    date = _with_day(date, now_s)
    month = _MONTH.fullmatch(date)
    if month is not None:
        first = Day(int(month[1]), int(month[2]), 1)
        yield _days(first, (first + timedelta(days=31)).replace(day=1))
        return
    with_time = _WITH_TIME.fullmatch(date)
    if with_time is None:
        day = Day.fromisoformat(date)
        yield _days(day, day + _A_DAY)
        return
    given = sum(part is not None for part in with_time.groups()[1:])
    yield from _within_a_day(_moment(date), _UNITS_S[given - 1])


def _with_day(date: str, now_s: int) -> str:
    """Replace ``today`` or ``yesterday`` at the start of a date by the day in ISO 8601."""
    named = _NAMED_DAY.fullmatch(date.lower())
    if named is None:
        return date
    day = time_of(now_s).date()
    day = day - _A_DAY if named[1] == "yesterday" else day
    clock = f" {_two_digits(named[2])}" if named[2] else ""
    return f"{day.isoformat()}{clock}"


def _two_digits(clock: str) -> str:
    return clock if clock[1:2].isdigit() else f"0{clock}"


def _last_time(clock: str, now_s: int) -> Iterator[Span]:
    """Yield the spans of the last day on which the local clock has shown a time."""
    today = time_of(now_s).date()
    # A time that the clock skips in spring was last shown on the day before.
    for day in (today, today - _A_DAY, today - 2 * _A_DAY):
        spans = list(_spans_of(f"{day.isoformat()} {_two_digits(clock)}", now_s))
        if spans[0].first < spans[0].end and spans[0].first <= now_s:
            # Of two, the later first, if the clock has shown it already; never a moment in UTC.
            yield from (span for span in spans[-2::-1] if span.first <= now_s)
            return


def _within_a_day(moment: datetime, unit_s: int) -> Iterator[Span]:
    if moment.tzinfo is not None:
        yield _span(moment, unit_s)
        return
    # An hour comes twice when summer time ends; an hour that is skipped in spring has no moments.
    first, second = (int(moment.replace(fold=fold).timestamp()) for fold in (0, 1))
    if unit_s == _HOUR_S:
        yield Span(first, second + unit_s if second >= first else first)
        return
    if second < first:
        change = int(moment.replace(minute=0, second=0, microsecond=0).timestamp())
        yield Span(change, change)
    else:
        yield _span(moment, unit_s)
        yield _span(moment.replace(fold=1), unit_s)
    yield _span(moment.replace(tzinfo=UTC), unit_s)


def _span(moment: datetime, unit_s: int) -> Span:
    first = int(moment.timestamp())
    return Span(first, first + unit_s)


def _days(first: Day, end: Day) -> Span:
    """Return the span of the days from ``first`` on and before ``end``."""
    begins = (datetime.combine(day, time.min) for day in (first, end))
    return Span(*(int(moment.timestamp()) for moment in begins))


def _moment(date: str) -> datetime:
    try:
        return datetime.fromisoformat(date)
    except ValueError:
        return datetime.strptime(date, _STAMP)  # noqa: DTZ007 -- local time is meant


def _is_named(name: str, date: str) -> bool:
    """Return whether ``date`` is a backup's name, or the stamp that a name starts with."""
    return date == name or (len(date) == _STAMP_LENGTH and name.startswith(f"{date}_"))

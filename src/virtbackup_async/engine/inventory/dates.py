"""What an admin means by a date: one rule for all commands.

A date stands for the whole unit that it names, and means the last backup in it::

    2026-03             the month          2026-03-01 02:15      the minute
    2026-03-01          the day            2026-03-01 02:15:00   the second
    2026-03-01T02       the hour           20260301-021500       the second, as in a backup's name

Without an offset it is local time; a minute or a second that has no backup may be one of UTC.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, time, timedelta
from datetime import date as Day  # noqa: N812 -- `date` is what the admin typed
from typing import Final, Protocol, TypeVar

from msgspec import Struct

from virtbackup_async.errors import ConfigError
from virtbackup_async.model.backup import Definition

CLOCK_SLACK_S: Final = 60
"""How far in the future a backup may be dated before somebody is told."""

_STAMP = "%Y%m%d-%H%M%S"
_STAMP_LENGTH = len("20260301-021500")
_NAME = re.compile(r"\d{8}-\d{6}_.+")
_MONTH = re.compile(r"(\d{4})-(\d{2})")
_WITH_TIME = re.compile(r"(\d{4}-?\d\d-?\d\d|\d{4}-?W\d\d-?\d)\D(\d\d)(:?\d\d)?(:?\d\d)?.*")
# By how many of hour, minute and second are given.
_UNITS_S = (3600, 60, 1)
_HOUR_S = _UNITS_S[0]


class Dated(Protocol):
    """A backup, whole or not."""

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


def at_date(backups: Sequence[T], date: str) -> T | None:
    """Return the backup that ``date`` means: the one of that name, or the last in its unit.

    Args:
        backups: all of one domain, oldest first.
        date: a date as above, ISO 8601, or the backup's name.

    Raises:
        ConfigError: the date cannot be understood.
    """
    named = [backup for backup in backups if _is_named(backup.name, date)]
    if named:
        return named[-1]
    for span in spans_of(date):
        inside = [backup for backup in backups if backup.date in span]
        if inside:
            return inside[-1]
    return None


def before_date(backups: Sequence[T], date: str) -> T | None:
    """Return the last backup before the end of the unit that ``date`` names.

    Raises:
        ConfigError: the date cannot be understood.
    """
    end = spans_of(date)[0].end
    before = [backup for backup in backups if backup.date < end]
    return before[-1] if before else None


def nearest(backups: Sequence[T], date: str, count: int) -> list[T]:
    """Return the backups nearest to a valid date, nearest first."""
    moment = spans_of(date)[0].first
    return sorted(backups, key=lambda backup: abs(backup.date - moment))[:count]


def start_of(date: str) -> int:
    """Return the first moment of the unit that a date names, in seconds since the epoch.

    Raises:
        ConfigError: the date cannot be understood.
    """
    return spans_of(date)[0].first


def date_of_name(name: str) -> int | None:
    """Return the moment in a backup's name, in seconds since the epoch; None if there is none."""
    try:
        moment = datetime.strptime(name[:_STAMP_LENGTH], _STAMP)  # noqa: DTZ007 -- local time
        return int(moment.timestamp())
    except (ValueError, OverflowError, OSError):
        return None


def spans_of(date: str) -> list[Span]:
    """Return what ``date`` may mean, the most likely first; at least one.

    Raises:
        ConfigError: it cannot be understood.
    """
    try:
        return list(_spans_of(date.strip()))
    except (ValueError, OverflowError, OSError) as error:
        raise ConfigError(
            f"date {date!r} cannot be understood",
            hint="Write it as 2026-03-01T02:15:00, 2026-03-01 or 2026-03, as 20260301-021500, or "
            "give the backup's name.",
        ) from error


def _spans_of(date: str) -> Iterator[Span]:
    if _NAME.fullmatch(date):
        # Of a backup that is not there any more.
        date = date[:_STAMP_LENGTH]
    month = _MONTH.fullmatch(date)
    if month is not None:
        first = Day(int(month[1]), int(month[2]), 1)
        yield _days(first, (first + timedelta(days=31)).replace(day=1))
        return
    with_time = _WITH_TIME.fullmatch(date)
    if with_time is None:
        day = Day.fromisoformat(date)
        yield _days(day, day + timedelta(days=1))
        return
    given = sum(part is not None for part in with_time.groups()[1:])
    yield from _within_a_day(_moment(date), _UNITS_S[given - 1])


def _within_a_day(moment: datetime, unit_s: int) -> Iterator[Span]:
    if moment.tzinfo is not None:
        yield _span(moment, unit_s)
        return
    # An hour comes twice when summer ends; one that is left out in spring has no moments.
    first, second = (int(moment.replace(fold=fold).timestamp()) for fold in (0, 1))
    if unit_s == _HOUR_S:
        yield Span(first, second + unit_s if second >= first else first)
        return
    yield _span(moment, unit_s)
    yield _span(moment.replace(fold=1), unit_s)
    yield _span(moment.replace(tzinfo=UTC), unit_s)


def _span(moment: datetime, unit_s: int) -> Span:
    first = int(moment.timestamp())
    return Span(first, first + unit_s)


def _days(first: Day, end: Day) -> Span:
    """Return the days from ``first`` on and before ``end``; one may have 23 or 25 hours."""
    begins = (datetime.combine(day, time.min) for day in (first, end))
    return Span(*(int(moment.timestamp()) for moment in begins))


def _moment(date: str) -> datetime:
    try:
        return datetime.fromisoformat(date)
    except ValueError:
        return datetime.strptime(date, _STAMP)  # noqa: DTZ007 -- local time is meant


def _is_named(name: str, date: str) -> bool:
    """Tell whether ``date`` is a backup's name, or the stamp that it starts with."""
    return date == name or (len(date) == _STAMP_LENGTH and name.startswith(f"{date}_"))

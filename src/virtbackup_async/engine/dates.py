"""Which backup of a domain an admin means by a date; ``listing`` asks for ``restore``."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, time
from datetime import date as Day  # noqa: N812 -- `date` is what the admin typed

from virtbackup_async.catalog.scanning import FoundBackup, Problem
from virtbackup_async.errors import ConfigError, DefinitionError, NotFoundError
from virtbackup_async.model.backup import Definition

_NEAREST_SHOWN = 3
_STAMP_LENGTH = len("20260301-021500")
_ANOTHER = "Name the date of another backup to restore that."
_DEFINITION_NAME = re.compile(r"\d{8}-\d{6}_.*\.json")


def local_time(definition: Definition) -> datetime:
    """Return the moment of a backup, with the local offset of that day."""
    return time_of(definition.date)


def time_of(date: int) -> datetime:
    """Return a moment, given in seconds since the epoch, with the local offset of that day."""
    return datetime.fromtimestamp(date, UTC).astimezone()


def at_date(backups: Sequence[FoundBackup], date: str) -> FoundBackup:
    """Return the backup that ``date`` means, the first way of reading it that fits one.

    Args:
        backups: all of one domain, at least one.
        date: ISO 8601 (without an offset: local time, or else UTC), ``YYYYmmdd-HHMMSS`` in local
            time, or the backup's name.

    Raises:
        NotFoundError: none is of that date; the nearest are named.
        ConfigError: the date cannot be understood.
    """
    moments = [] if _named(backups, date) else _moments(date)
    found = _exactly_at(backups, date, moments)
    if found is None:
        raise _not_found(backups, date, moments[0])
    return found


def at_or_before_date(
    problems: Sequence[Problem], backups: Sequence[FoundBackup], date: str
) -> FoundBackup:
    """Return the backup that ``date`` means, or the last one before it.

    A day without a time stands for its end.

    Args:
        problems: those in the directory of the domain.
        backups: all of one domain, oldest first, at least one.
        date: as for :func:`at_date`.

    Raises:
        DefinitionError: there is a later one that is meant, and it is damaged.
        NotFoundError: all are later.
        ConfigError: the date cannot be understood.
    """
    moments = [] if _named(backups, date) else _moments(date)
    exact = _exactly_at(backups, date, moments)
    if exact is not None:
        return exact
    until = _end_of_day(date) or moments[0]
    before = [found for found in backups if found.definition.date <= until]
    if not before:
        raise _not_found(backups, date, until)
    stamp = time_of(until).strftime("%Y%m%d-%H%M%S")
    for problem in problems:
        file = problem.path.name
        if _DEFINITION_NAME.fullmatch(file) and before[-1].path.name < file[: len(stamp)] <= stamp:
            raise DefinitionError(problem.message, hint=_ANOTHER)
    return before[-1]


def start_of(date: str) -> int:
    """Return the moment of a date, in seconds since the epoch; of a day, its start.

    Raises:
        ConfigError: the date cannot be understood.
    """
    return _moments(date)[0]


def is_exact(found: FoundBackup, date: str) -> bool:
    """Tell whether ``date`` names this backup, or is its moment."""
    named = _is_named(found.definition.name, date)
    return named or found.definition.date in _moments(date)


def _named(backups: Sequence[FoundBackup], date: str) -> FoundBackup | None:
    named = (found for found in backups if _is_named(found.definition.name, date))
    return next(named, None)


def _exactly_at(
    backups: Sequence[FoundBackup], date: str, moments: Sequence[int]
) -> FoundBackup | None:
    by_date = {found.definition.date: found for found in backups}
    at_moments = (by_date[moment] for moment in moments if moment in by_date)
    return _named(backups, date) or next(at_moments, None)


def _not_found(backups: Sequence[FoundBackup], date: str, moment: int) -> NotFoundError:
    nearest = sorted(backups, key=lambda found: abs(found.definition.date - moment))
    dates = ", ".join(
        local_time(found.definition).isoformat() for found in nearest[:_NEAREST_SHOWN]
    )
    domain = backups[0].definition.domain_name
    return NotFoundError(f"no backup of {domain} at {date}", hint=f"The nearest are of {dates}.")


def refuse_damaged(
    problems: Sequence[Problem], backups: Sequence[FoundBackup], date: str | None
) -> None:
    """Raise DefinitionError if the backup that is meant is there, and damaged.

    An older one must not be restored in place of the newest without a word.

    Args:
        problems: those in the directory of the domain.
        backups: all whole ones of the domain, oldest first.
        date: as for :func:`at_date`; None for the newest.
    """
    newest = backups[-1].path.name if backups else ""
    for problem in problems:
        file = problem.path.name
        is_meant = file > newest if date is None else _is_named(problem.path.stem, date)
        if is_meant and _DEFINITION_NAME.fullmatch(file):
            hint = _ANOTHER if backups else None
            raise DefinitionError(problem.message, hint=hint)


def _is_named(name: str, date: str) -> bool:
    """Tell whether ``date`` is a backup's name, or the stamp that it starts with."""
    return date == name or (len(date) == _STAMP_LENGTH and name.startswith(f"{date}_"))


def _moments(date: str) -> list[int]:
    """Return the seconds since the epoch that ``date`` may mean, most likely first."""
    try:
        moment = _parsed(date)
        if moment.tzinfo is not None:
            return [int(moment.timestamp())]
        # An hour comes twice when summer ends: both are tried.
        readings = (moment, moment.replace(fold=1), moment.replace(tzinfo=UTC))
        return [int(reading.timestamp()) for reading in readings]
    except (ValueError, OverflowError, OSError) as error:
        raise ConfigError(
            f"date {date!r} cannot be understood",
            hint="Write it as 2026-03-01T02:15:00, as 20260301-021500, or give the backup's name.",
        ) from error


def _end_of_day(date: str) -> int | None:
    """Return the last second of a day given without a time; None for all other dates."""
    try:
        day = datetime.combine(Day.fromisoformat(date), time.max)
        return int(day.timestamp())
    except (ValueError, OverflowError, OSError):
        return None


def _parsed(date: str) -> datetime:
    try:
        return datetime.fromisoformat(date)
    except ValueError:
        return datetime.strptime(date, "%Y%m%d-%H%M%S")  # noqa: DTZ007 -- local time is meant

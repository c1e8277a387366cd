"""Which backup of a domain an admin means by a date; ``listing`` asks for ``restore``."""

from collections.abc import Sequence
from datetime import UTC, datetime

from virtbackup_async.catalog.scanning import FoundBackup
from virtbackup_async.errors import ConfigError, NotFoundError
from virtbackup_async.model.backup import Definition

_NEAREST_SHOWN = 3
_STAMP_LENGTH = len("20260301-021500")


def local_time(definition: Definition) -> datetime:
    """Return the moment of a backup, with the local offset of that day."""
    return datetime.fromtimestamp(definition.date, UTC).astimezone()


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
    for found in backups:
        name = found.definition.name
        if date == name or (len(date) == _STAMP_LENGTH and name.startswith(f"{date}_")):
            return found
    moments = _moments(date)
    by_date = {found.definition.date: found for found in backups}
    for moment in moments:
        if moment in by_date:
            return by_date[moment]
    nearest = sorted(backups, key=lambda found: abs(found.definition.date - moments[0]))
    dates = ", ".join(
        local_time(found.definition).isoformat() for found in nearest[:_NEAREST_SHOWN]
    )
    domain = backups[0].definition.domain_name
    raise NotFoundError(f"no backup of {domain} at {date}", hint=f"The nearest are of {dates}.")


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


def _parsed(date: str) -> datetime:
    try:
        return datetime.fromisoformat(date)
    except ValueError:
        return datetime.strptime(date, "%Y%m%d-%H%M%S")  # noqa: DTZ007 -- local time is meant

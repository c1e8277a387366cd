"""The days on which retention will remove a guest's backups, found by simulating the next month.

::

    today         the rules decide, expired backups are dropped
    ... again after each next backup, at the interval of the last ones ...
    in 31 days    the remaining backups stay

Pure.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, tzinfo
from itertools import pairwise
from statistics import median

from msgspec.structs import replace

from virtbackup_async.catalog.scanning import FoundBackup
from virtbackup_async.config.schema import Retention
from virtbackup_async.engine.clean.retention import RetentionDecision, decide
from virtbackup_async.model.facts import KeptBackup

DAYS = 31
_DAY_S = 86_400
_SHORTEST_S = 6 * 3600
_GAPS = 10


def play(
    backups: Sequence[FoundBackup],
    policies: Sequence[Retention],
    now: datetime,
    zone: tzinfo | None = None,
) -> tuple[KeptBackup, ...]:
    """Return each backup with the reasons why it stays now, and the day on which it expires.

    Args:
        backups: of one domain, oldest first.
        policies: the rules of every group that the domain is in.
        now: an aware time.
        zone: the time zone of the periods; None for the local one.
    """
    today = decide(backups, policies, now, zone)
    goes = {d.found.path.name: _day(now, zone) for d in today if not d.keep}
    left = [decision.found for decision in today if decision.keep]
    for made, moment in _to_come(backups, now):
        left.append(made)
        decisions = decide(left, policies, moment, zone)
        for decision in decisions:
            if not decision.keep:
                goes.setdefault(decision.found.path.name, _day(moment, zone))
        left = [decision.found for decision in decisions if decision.keep]
    return tuple(_kept(decision, goes) for decision in today)


def _kept(decision: RetentionDecision, goes: dict[str, int]) -> KeptBackup:
    definition = decision.found.definition
    return KeptBackup(
        definition.name, definition.date, decision.reasons, goes.get(decision.found.path.name)
    )


def _day(moment: datetime, zone: tzinfo | None) -> int:
    return moment.astimezone(zone).toordinal()


def _to_come(
    backups: Sequence[FoundBackup], now: datetime
) -> Iterator[tuple[FoundBackup, datetime]]:
    """Yield the backups of the next month, each with the moment after it."""
    past = [found for found in backups if found.definition.date <= now.timestamp()]
    if not past:
        return
    last = past[-1]
    step_s = _interval_s([found.definition.date for found in past[-_GAPS:]])
    date = last.definition.date
    end = now.timestamp() + DAYS * _DAY_S
    while (date := date + step_s) <= end:
        if date > now.timestamp():
            definition = replace(last.definition, date=date, pinned=False, verified=None)
            path = last.path.with_name(f"{date}.json")
            yield FoundBackup(definition, path), datetime.fromtimestamp(date + 1, UTC)


def _interval_s(dates: Sequence[int]) -> int:
    gaps = [later - earlier for earlier, later in pairwise(dates)]
    return max(_SHORTEST_S, int(median(gaps))) if gaps else _DAY_S

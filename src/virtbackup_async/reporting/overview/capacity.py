"""The space of targets, and when it runs out: a line through the last days, and its error."""

from collections.abc import Iterable, Sequence
from math import sqrt

from virtbackup_async.model.facts import Facts, TargetFacts
from virtbackup_async.model.run_record import RunRecord
from virtbackup_async.reporting.overview.parts import Capacity, Forecast
from virtbackup_async.reporting.overview.runs import CLOCK_SLACK_S

DAY_S = 86_400
SHOWN_DAYS = 90
_FITTED_DAYS = 30
_LEAST_POINTS = 5
_LEAST_DAYS = 4
_HORIZON_S = 5 * 365 * DAY_S
# About 95 %.
_ERRORS = 2.0

Point = tuple[float, int, int]


def capacities(facts: Facts) -> tuple[Capacity, ...]:
    """Return the space of each target."""
    expired = {target.path: 0 for target in facts.targets}
    for guest in facts.guests:
        count = sum(backup.expires for backup in guest.backups)
        expired[guest.target] = expired.get(guest.target, 0) + count
    return tuple(_capacity(target, facts.at, expired[target.path]) for target in facts.targets)


def _capacity(target: TargetFacts, at: float, expired: int) -> Capacity:
    points = _points(target, at)
    days = (points[-1][0] - points[0][0]) / DAY_S if points else 0
    return Capacity(
        target.path,
        target.groups,
        target.error,
        points,
        forecast(points),
        days,
        expired,
        target.expired_bytes,
    )


def _points(target: TargetFacts, at: float) -> tuple[Point, ...]:
    """Return the last point of each day, and now."""
    by_day = {int(p[0] // DAY_S): p for p in _of_runs(target.history, at)}
    if target.used_bytes is not None and target.free_bytes is not None:
        by_day[int(at // DAY_S)] = (at, target.used_bytes, target.free_bytes)
    return tuple(by_day[day] for day in sorted(by_day))


def _of_runs(runs: Iterable[RunRecord], at: float) -> Iterable[Point]:
    for run in runs:
        is_shown = at - SHOWN_DAYS * DAY_S <= run.end <= at + CLOCK_SLACK_S
        if is_shown and run.used_bytes is not None and run.free_bytes is not None:
            yield run.end, run.used_bytes, run.free_bytes


def forecast(points: Sequence[Point]) -> Forecast | None:
    """Return when the space runs out, by the last 30 days; None if too little is known.

    If a file system was made larger or smaller, only the days since then count.
    """
    fitted = _since_resized([p for p in points if p[0] >= points[-1][0] - _FITTED_DAYS * DAY_S])
    if len(fitted) < _LEAST_POINTS or fitted[-1][0] - fitted[0][0] < _LEAST_DAYS * DAY_S:
        return None
    slope, error = _line([p[0] for p in fitted], [float(p[1]) for p in fitted])
    now, _, free = fitted[-1]
    per_day = slope * DAY_S
    earliest = _full(now, free, slope + _ERRORS * error)
    if slope <= _ERRORS * error and slope * _FITTED_DAYS * DAY_S < free * 0.01:
        return Forecast(per_day, None, None, None)
    return Forecast(
        per_day, _full(now, free, slope), earliest, _full(now, free, slope - _ERRORS * error)
    )


def _since_resized(points: Sequence[Point]) -> Sequence[Point]:
    start = 0
    for place in range(1, len(points)):
        before, after = (sum(points[at][1:]) for at in (place - 1, place))
        if abs(after - before) > before * 0.01:
            start = place
    return points[start:]


def _full(now: float, free: int, slope: float) -> float | None:
    """Return the moment at which ``free`` bytes are gone; None if not within five years."""
    if slope <= 0 or free / slope > _HORIZON_S:
        return None
    return now + free / slope


def _line(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """Return the slope of the least-squares line, and the slope's standard error."""
    count = len(xs)
    mean_x, mean_y = sum(xs) / count, sum(ys) / count
    spread = sum((x - mean_x) ** 2 for x in xs)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread
    rest = sum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y in zip(xs, ys, strict=True))
    return slope, sqrt(rest / (count - 2) / spread)

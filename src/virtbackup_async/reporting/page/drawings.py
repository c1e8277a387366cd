"""The geometry of the page's drawings: numbers for SVG, in the units of each drawing's view box.

A drawing holds no text, and is stretched to fit. The page's own text is next to it, so that the
text stays readable on a narrow screen.
"""

from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct

from virtbackup_async.events import Phase
from virtbackup_async.model.run_record import DomainRun, Outcome
from virtbackup_async.reporting.overview.capacity import DAY_S
from virtbackup_async.reporting.overview.parts import (
    Bar,
    Capacity,
    Forecast,
    GuestLine,
    Night,
    Totals,
)

SPARK_HEIGHT = 20
_SPARK_STEP = 3
_WIDTH = 1000.0
_HEIGHT = 100.0
_STEPS_S = (60, 300, 600, 900, 1800, 3600, 7200, 14400)
_TICKS_MOST = 6
BARS_SHOWN = 24
GROWERS_SHOWN = 5
WEEK = 7
_AHEAD_LEAST_S = 30 * DAY_S
_AHEAD_MOST_S = 180 * DAY_S


def sparkline(amounts: Sequence[int]) -> str:
    """Return a path with one column for each day; the highest is as high as the drawing."""
    most = max(amounts, default=0)
    return "".join(
        f"M{place * _SPARK_STEP} {SPARK_HEIGHT}v-{max(1.0, SPARK_HEIGHT * amount / most):.1f}h2V"
        f"{SPARK_HEIGHT}z"
        for place, amount in enumerate(amounts)
        if amount
    )


class Span(Struct, frozen=True):
    """A part of a bar."""

    name: str
    x: float
    width: float


class NightRow(Struct, frozen=True):
    """One guest's bar; ``frozen_x`` is where its file systems were frozen."""

    name: str
    run: DomainRun
    spans: tuple[Span, ...]
    frozen_x: float | None

    @property
    def is_failed(self) -> bool:
        return self.run.outcome == Outcome.FAILED

    @property
    def seconds(self) -> float:
        return self.run.end - self.run.start


class NightDrawing(Struct, frozen=True):
    """The bars of a night.

    Attributes:
        ticks: moments on the axis, each with its position in percent.
        hidden: how many bars are left out.
    """

    rows: tuple[NightRow, ...]
    ticks: tuple[tuple[float, float], ...]
    hidden: int


def draw_night(night: Night) -> NightDrawing:
    """Return the drawing of a night; of many guests, the failed and the longest ones."""
    length_s = max(1.0, night.end - night.start)

    def x_of(moment: float) -> float:
        return round(_WIDTH * (moment - night.start) / length_s, 1)

    chosen = sorted(night.bars, key=_weight)[:BARS_SHOWN]
    chosen.sort(key=lambda bar: (bar.run.start, bar.name))
    return NightDrawing(
        tuple(_row(bar, x_of) for bar in chosen),
        tuple(_ticks(night, length_s)),
        len(night.bars) - len(chosen),
    )


def phases_of(night: NightDrawing | None) -> list[str]:
    """Return the phases that are drawn, in the order of a backup."""
    drawn = {span.name for row in night.rows for span in row.spans} if night else set()
    return [str(phase) for phase in Phase if phase in drawn]


def _weight(bar: Bar) -> tuple[bool, float]:
    return bar.run.outcome != Outcome.FAILED, bar.run.start - bar.run.end


def _row(bar: Bar, x_of: Callable[[float], float]) -> NightRow:
    phases = bar.phases or (("unknown", bar.run.start, bar.run.end),)
    spans = (
        Span(name, x_of(start), max(2.0, round(x_of(end) - x_of(start), 1)))
        for name, start, end in phases
    )
    frozen = bar.frozen_at if bar.run.frozen_ms is not None else None
    return NightRow(bar.name, bar.run, tuple(spans), None if frozen is None else x_of(frozen))


def _ticks(night: Night, length_s: float) -> Iterator[tuple[float, float]]:
    step_s = next((step for step in _STEPS_S if length_s / step <= _TICKS_MOST), _STEPS_S[-1])
    moment = -(-night.start // step_s) * step_s
    while moment <= night.end:
        yield moment, round(100 * (moment - night.start) / length_s, 2)
        moment += step_s


class CapacityDrawing(Struct, frozen=True):
    """The space of a target over time, and its forecast.

    Attributes:
        start: the first moment that is drawn.
        end: the last one.
        today: the position of now, in percent.
        used: the path of the area that is used.
        line: the forecast's points, from now on.
        band: the points around it.
    """

    start: float
    end: float
    today: float
    used: str
    line: str = ""
    band: str = ""


def draw_capacity(capacity: Capacity) -> CapacityDrawing | None:
    """Return the drawing of a target's space; None if too little is known for one."""
    points = capacity.points
    if len(points) < 2:  # noqa: PLR2004 -- a line needs two
        return None
    start, now = points[0][0], points[-1][0]
    end = now + _ahead_s(capacity.forecast, now)
    total = max(used + free for _, used, free in points) or 1

    def at(moment: float, amount: float) -> str:
        x = _WIDTH * (moment - start) / (end - start)
        y = _HEIGHT * (1 - min(1.0, max(0.0, amount / total)))
        return f"{x:.1f} {y:.1f}"

    shown = " L".join(at(date, used) for date, used, _ in points)
    area = f"M{at(start, 0)} L{shown} L{at(now, 0)}z"
    today = round(100 * (now - start) / (end - start), 2)
    if capacity.forecast is None:
        return CapacityDrawing(start, end, today, area)
    _, used, free = points[-1]
    return CapacityDrawing(
        start,
        end,
        today,
        area,
        _line(capacity.forecast, (now, end, used), at),
        _band(capacity.forecast, (now, end, used, free), at),
    )


def _ahead_s(forecast: Forecast | None, now: float) -> float:
    if forecast is None:
        return _AHEAD_LEAST_S
    ends = (forecast.latest, forecast.full)
    known = next((moment for moment in ends if moment is not None), now)
    return min(_AHEAD_MOST_S, max(_AHEAD_LEAST_S, 1.1 * (known - now)))


def _line(
    forecast: Forecast, span: tuple[float, float, int], at: Callable[[float, float], str]
) -> str:
    now, end, used = span
    last = used + forecast.per_day_bytes * (end - now) / DAY_S
    return f"{at(now, used)} {at(end, last)}"


def _band(
    forecast: Forecast, span: tuple[float, float, int, int], at: Callable[[float, float], str]
) -> str:
    """Return the corners of the band: from now to both ends, each at its own slope."""
    now, end, used, free = span
    if forecast.earliest is None:
        return ""

    def reached(full: float | None) -> float:
        return used if full is None else used + free * (end - now) / max(1.0, full - now)

    corners = (
        at(now, used),
        at(forecast.earliest, used + free) if forecast.earliest < end else "",
        at(end, reached(forecast.earliest)),
        at(end, reached(forecast.latest)),
    )
    return " ".join(filter(None, corners))


class Step(Struct, frozen=True):
    """One bar on the way from disks to what is stored; ``percent`` of the longest."""

    name: str
    length_bytes: int
    percent: float


def draw_totals(totals: Totals) -> tuple[Step, ...]:
    """Return the bars of the totals, on one scale."""
    steps = (
        ("disks", totals.disk_bytes),
        ("used in them", totals.used_bytes),
        ("unique in all backups", totals.unique_bytes),
        ("stored", totals.stored_bytes),
    )
    most = max(length for _, length in steps) or 1
    return tuple(Step(name, length, round(100 * length / most, 2)) for name, length in steps)


def rank_felt(guests: Sequence[GuestLine]) -> list[GuestLine]:
    """Return the guests of which is known what they felt: first the raised, then the longest."""
    known = [(guest.felt, guest) for guest in guests if guest.felt is not None]
    known.sort(
        key=lambda one: (not one[0].is_raised, -(one[0].frozen_ms or 0), -(one[0].overlay_s or 0))
    )
    return [guest for _, guest in known]


class Grower(Struct, frozen=True):
    """A guest that added much in the last week."""

    guest: GuestLine
    week_bytes: int
    percent: float


def draw_growth(guests: Sequence[GuestLine]) -> tuple[Grower, ...]:
    """Return the guests that grow more than usual, then those that added most in 7 days."""
    weeks = {id(guest): sum(guest.added[-WEEK:]) for guest in guests}
    raised = [guest for guest in guests if guest.growth is not None]
    raised.sort(key=lambda guest: -(guest.growth.factor if guest.growth else 0))
    others = sorted(guests, key=lambda guest: -weeks[id(guest)])
    calm = [guest for guest in others if guest.growth is None and weeks[id(guest)]]
    shown = [*raised[: 2 * GROWERS_SHOWN], *calm[: max(0, GROWERS_SHOWN - len(raised))]]
    most = max((weeks[id(guest)] for guest in shown), default=0) or 1
    return tuple(
        Grower(guest, weeks[id(guest)], round(100 * weeks[id(guest)] / most, 1)) for guest in shown
    )

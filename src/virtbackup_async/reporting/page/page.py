r"""Renders the page with Jinja2, which is imported when there is a page to make.

Every name on the page comes from outside. A template's output is escaped twice: a character that
could move a cursor or reverse text becomes ``\x1b``, as on a terminal, and HTML's own characters
become entities. A template that names an undefined variable fails.
"""

from datetime import tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Final

from virtbackup_async.model.amounts import duration, size
from virtbackup_async.reporting.overview.changes import CHANGED_DAYS
from virtbackup_async.reporting.overview.days import DAYS
from virtbackup_async.reporting.overview.parts import Overview, Standing
from virtbackup_async.reporting.page import drawings, words
from virtbackup_async.reporting.text import clock, command_line, printable

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES: Final = Path(__file__).parent / "templates"
FOLD_FROM: Final = 9
"""From so many on, guests that are in order are folded; fewer are shown."""
FOLD_DAYS_FROM: Final = 31
"""The same for their days, which take a line each."""
ACTIONS_SHOWN: Final = 5
FELT_SHOWN: Final = 8


def render_page(
    overview: Overview,
    zone: tzinfo | None = None,
    *,
    took_s: float | None = None,
    mailed: int | None = None,
) -> str:
    """Return the page as one HTML document.

    Args:
        overview: what it shows.
        zone: the time zone of its times; None for the local one. The overview's days are in it.
        took_s: how long it took to collect the overview.
        mailed: when a page was mailed last, in seconds since the epoch; the next run reads it.
    """
    says = words.Words(overview.at, zone)
    environment = _environment()
    environment.filters.update(
        age=words.short_age,
        cell=says.cell,
        command=command_line,
        counted=words.counted,
        date=says.date,
        day=says.day,
        day_sum=says.day_sum,
        duration=duration,
        growth=says.growth,
        id_of=id,
        iso=says.iso,
        moment=says.moment,
        ms=words.milliseconds,
        size=size,
        sparkline=drawings.sparkline,
        time=says.time,
        trend=says.trend,
        weekday=says.weekday,
    )
    feeling = drawings.rank_felt(overview.guests)
    night = drawings.draw_night(overview.night) if overview.night else None
    return environment.get_template("page.html.j2").render(
        o=overview,
        table=words.halves(overview.guests, FOLD_FROM),
        heat=words.halves(overview.guests, FOLD_DAYS_FROM),
        retired=sum(guest.standing is Standing.RETIRED for guest in overview.guests),
        places={id(guest): place for place, guest in enumerate(overview.guests)},
        days_shown=DAYS,
        glyphs=words.GLYPHS,
        kinds=words.KINDS,
        kinds_seen={kind for day in overview.days for kind, _ in day.counts},
        standings=words.STANDINGS,
        marks=words.MARKS,
        actions_shown=ACTIONS_SHOWN,
        made_at=says.made_at,
        night=night,
        charts=[(one, drawings.draw_capacity(one)) for one in overview.capacity],
        steps=drawings.draw_totals(overview.totals),
        growers=drawings.draw_growth(overview.guests),
        feeling=feeling[:FELT_SHOWN],
        felt_hidden=max(0, len(feeling) - FELT_SHOWN),
        changed_days=CHANGED_DAYS,
        percent=words.percent,
        roughly=words.roughly,
        clock=clock,
        phases=drawings.phases_of(night),
        took_s=took_s,
        mailed=mailed,
    )


def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415 -- see above

    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )


def _printable(value: object) -> object:
    # Markup is a template's own output; its parts have already been escaped here.
    return printable(value) if type(value) is str else value

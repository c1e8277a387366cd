"""Races as a picture: a bar a contender, grouped by race, legible on light and on dark. Pure."""

from collections.abc import Sequence
from xml.sax.saxutils import escape

from benchmarks.results import Race, Series
from benchmarks.targets import text

_WIDTH, _LEFT, _RIGHT = 760, 220, 90
_BAR, _STEP, _GROUP, _TITLE = 16, 22, 34, 44
_STYLE = """\
<style>
  text { font: 12px system-ui, sans-serif; fill: #1f2328 }
  .title { font-size: 16px; font-weight: 600 } .race { font-weight: 600 }
  .ours { fill: #0a7d4f } .peer { fill: #9aa4af } .name { text-anchor: end }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .ours { fill: #3fb27f } .peer { fill: #5b6570 }
  }
</style>"""


def svg(title: str, races: Sequence[Race]) -> str:
    """Draw the median times; each race has a scale of its own, its longest bar is the width."""
    body, at = [], _TITLE
    for race in races:
        drawn = [series for series in race.series if series.median("wall_s")]
        body.append(f'<text class="race" x="{_LEFT}" y="{at + 14}">{escape(race.name)}</text>')
        at += _STEP
        longest = max((series.median("wall_s") or 0 for series in drawn), default=1)
        for series in drawn:
            body.append(_bar(series, longest, at))
            at += _STEP
        at += _GROUP - _STEP
    size = f'width="{_WIDTH}" height="{at}" viewBox="0 0 {_WIDTH} {at}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
    name = escape(title)
    top = f'<title>{name}</title>\n{_STYLE}\n<text class="title" x="12" y="26">{name}</text>'
    return "\n".join([head, top, *body, "</svg>\n"])


def _bar(series: Series, longest: float, at: int) -> str:
    seconds = series.median("wall_s") or 0
    width = max(1, round((_WIDTH - _LEFT - _RIGHT) * seconds / longest))
    kind = "ours" if series.contender == "virtbackup" else "peer"
    middle = at + _BAR - 4
    return (
        f'<text class="name" x="{_LEFT - 8}" y="{middle}">{escape(series.contender)}</text>'
        f'<rect class="{kind}" x="{_LEFT}" y="{at}" width="{width}" height="{_BAR}" rx="2"/>'
        f'<text x="{_LEFT + width + 6}" y="{middle}">{text("wall_s", seconds)}</text>'
    )

"""A chart of lines in text: a bar and an amount for each of some days.

::

    2026-07-01  ########################  5.1 GiB
    2026-07-02  ##                        310.0 MiB
    2026-07-03

The bars take what room there is, or go where there is none; the figures always stand.
"""

from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from typing import Final

from rich.console import Console
from rich.text import Text

from virtbackup_async.cli.render.drawing import glyphs_for
from virtbackup_async.model.amounts import size

MOST_DAYS: Final = 30
_LEAST_BAR: Final = 5
_MOST_BAR: Final = 40
_GAP: Final = "  "


def print_days(console: Console, amounts: Mapping[str, int]) -> None:
    """Write a line for each day from the first to the last, of the last month.

    Args:
        console: where to.
        amounts: bytes by day, ``2026-07-01``; at least one.
    """
    days = list(_days(amounts))
    top = max(amounts[day] for day in days if day in amounts)
    room = console.width - len(_GAP.join([days[0], "", "1023.9 MiB"])) - 1
    width = min(_MOST_BAR, room) if room >= _LEAST_BAR else 0
    full = glyphs_for(console).full
    for day in days:
        amount = amounts.get(day, 0)
        line = Text(day)
        if width:
            # What is anything at all is seen.
            length = -(-width * amount // top) if top else 0
            line.append(_GAP)
            line.append(full * length, style="green")
            line.append(" " * (width - length))
        line.append(f"{_GAP}{size(amount)}" if day in amounts else "")
        line.rstrip()
        console.print(line, soft_wrap=True)


def _days(amounts: Mapping[str, int]) -> Iterator[str]:
    last = date.fromisoformat(max(amounts))
    first = max(date.fromisoformat(min(amounts)), last - timedelta(days=MOST_DAYS - 1))
    for number in range((last - first).days + 1):
        yield (first + timedelta(days=number)).isoformat()

"""What a terminal shows, as an SVG picture; `scripts/record-live-view` draws with it, too."""

import io
from pathlib import Path

from rich.console import Console


def picture_console(width: int, height: int) -> Console:
    """Return a console that draws a terminal of that size in full colour, on nothing."""
    return Console(
        file=io.StringIO(), record=True, width=width, height=height, markup=False, emoji=False,
        highlight=False, color_system="truecolor", force_terminal=True, legacy_windows=False,
    )  # fmt: skip


def write_picture(console: Console, title: str, out: Path) -> None:
    """Write what was printed on a ``picture_console``; ``title`` stands above it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(console.export_svg(title=title))

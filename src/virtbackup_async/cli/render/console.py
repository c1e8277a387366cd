"""How a rich console is made here, plain text without markup or highlights, and its colours."""

import os
from typing import Final, TextIO

from rich.console import Console

from virtbackup_async.reporting.text import printable

# Whatever a colour says, the words beside it say as well.
BAD: Final = "bold red"
LOOK: Final = "yellow"
GOOD: Final = "green"
FACT: Final = "dim"

# A pipe has no width: wide enough that no table is cut, narrow enough for rich's arithmetic.
_PIPE_WIDTH: Final = 1000
_NO_LIMIT: Final = 1 << 30
_LEAST_WIDTH: Final = 10
_HEIGHT: Final = 24


def text_console(file: TextIO, *, width: int | None = None) -> Console:
    """Return a console on ``file``; ``width`` is for tests, otherwise the terminal's own."""
    if width is None:
        width = _own_width(file) if file.isatty() else _PIPE_WIDTH
    # Of a dumb terminal, rich believes a width only if it is given a height too.
    height = None if width is None else _HEIGHT
    return Console(
        file=file,
        width=width,
        height=height,
        markup=False,
        emoji=False,
        highlight=False,
        soft_wrap=False,
    )


def room_of(console: Console) -> int:
    """Return how many columns a line may have; without a limit in a pipe, which cuts nothing."""
    return _NO_LIMIT if console.width >= _PIPE_WIDTH else max(_LEAST_WIDTH, console.width)


def escaped(console: Console, text: str) -> str:
    """Return a text with all escaped that the terminal would obey or cannot show."""
    text = printable(text)
    if text.isascii() or console.encoding.startswith("utf"):
        return text  # of many thousands in a list
    return text.encode(console.encoding, "backslashreplace").decode(console.encoding)


def _own_width(file: TextIO) -> int | None:
    """Return the width of a terminal that rich takes for 80 columns wide; None asks rich."""
    if os.environ.get("TERM", "").lower() not in {"dumb", "unknown"}:
        return None
    try:
        return os.get_terminal_size(file.fileno()).columns or None
    except OSError:
        return None

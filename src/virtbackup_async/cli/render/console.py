"""How a rich console is made here, plain text without markup or highlights, and its colours."""

from typing import Final, TextIO

from rich.console import Console

# Whatever a colour says, the words beside it say as well.
BAD: Final = "bold red"
LOOK: Final = "yellow"
GOOD: Final = "green"
FACT: Final = "dim"

# A pipe has no width: wide enough that no table is cut, narrow enough for rich's arithmetic.
_PIPE_WIDTH = 1000


def text_console(file: TextIO, *, width: int | None = None) -> Console:
    """Return a console on ``file``; ``width`` is for tests, otherwise the terminal's own."""
    if width is None and not file.isatty():
        width = _PIPE_WIDTH
    return Console(
        file=file, width=width, markup=False, emoji=False, highlight=False, soft_wrap=False
    )

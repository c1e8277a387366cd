"""The one way a rich console is made here: plain text in, no markup, no guessing at highlights."""

from typing import TextIO

from rich.console import Console

# A pipe has no width: wide enough that no table is cut, narrow enough for rich's arithmetic.
_PIPE_WIDTH = 1000


def text_console(file: TextIO, *, width: int | None = None) -> Console:
    """A console on ``file``; ``width`` is for tests, else the terminal's own."""
    if width is None and not file.isatty():
        width = _PIPE_WIDTH
    return Console(
        file=file, width=width, markup=False, emoji=False, highlight=False, soft_wrap=False
    )

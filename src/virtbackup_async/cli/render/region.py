"""Some rows at the bottom of a terminal that are drawn again and again.

Between two drawings the cursor stays on the region's first cell. So whatever a change of the size
does to the rows below, how it wraps them or not, the region begins at the cursor, and can be erased
without a trace. Lines are not wrapped while they are written, in case the size changes meanwhile.
Only rows that changed are written.
"""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

_HIDE, _SHOW = "\x1b[?25l", "\x1b[?25h"
_NO_WRAP, _WRAP = "\x1b[?7l", "\x1b[?7h"
_ERASE_BELOW = "\r\x1b[J"
_ERASE_RIGHT = "\x1b[K"


class Region:
    """The rows; nothing is written before ``start``, and printed lines then come at once."""

    def __init__(self, console: Console) -> None:
        self.is_started = False
        self._console = console
        self._rows: list[str] = []
        self._size = (0, 0)
        self._above: list[str] = []

    def start(self) -> None:
        """Hide the cursor; ``draw`` draws."""
        if not self.is_started:
            self.is_started = True
            self._rows = []
            self._write(_HIDE)

    def stop(self) -> None:
        """Erase the region; leave only what was printed above it, and show the cursor."""
        if self.is_started:
            self.is_started = False
            self._write(_ERASE_BELOW + self._taken_above() + _SHOW)
            self._rows = []

    def print(self, text: Text) -> None:
        """Print a line above the region, which scrolls away as others do."""
        line = f"{self._ansi(text)}\n"
        if self.is_started:
            self._above.append(line)
        else:
            self._write(line)

    def draw(self, lines: Sequence[Text]) -> None:
        """Draw the rows, each narrower than the terminal, and fewer than it has."""
        rows = [self._ansi(line) for line in lines]
        size = tuple(self._console.size)
        above = self._taken_above()
        anew = bool(above) or size != self._size or len(rows) != len(self._rows)
        if not anew and rows == self._rows:
            return
        written = [
            "" if not anew and row == before else f"\r{row}{_ERASE_RIGHT}"
            for row, before in zip(rows, self._rows if not anew else rows, strict=True)
        ]
        start = _ERASE_BELOW + above if anew else ""
        back = f"\r\x1b[{len(rows) - 1}A" if len(rows) > 1 else "\r"
        self._write(start + _NO_WRAP + "\r\n".join(written) + back + _WRAP)
        self._rows, self._size = rows, (size[0], size[1])

    def _taken_above(self) -> str:
        above, self._above = "".join(self._above), []
        return above

    def _ansi(self, text: Text) -> str:
        with self._console.capture() as captured:
            self._console.print(text, end="", soft_wrap=True)
        return captured.get()

    def _write(self, text: str) -> None:
        self._console.file.write(text)
        self._console.file.flush()

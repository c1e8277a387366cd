"""What a terminal shows of the bytes that are written to it; it can change its size."""

import io

import pyte
from rich.console import Console
from rich.console import ConsoleDimensions as Size


class Terminal:
    """A terminal in memory, with a console that writes to it.

    With ``wraps``, a narrower one wraps the rows that are too long, as most terminals do; the
    cursor stays on its character. Without, it cuts them off, as xterm does.
    """

    def __init__(
        self, columns: int, rows: int, *, wraps: bool = True, coloured: bool = False
    ) -> None:
        self.wraps = wraps
        self._screen = pyte.HistoryScreen(columns, rows, history=1000)
        self._stream = pyte.Stream(self._screen)
        self.console = Console(
            file=_Writer(self._stream), force_terminal=True, markup=False, emoji=False,
            highlight=False, color_system="standard" if coloured else None,
        )  # fmt: skip
        self._tell_size()

    @property
    def shown(self) -> list[str]:
        """The rows on the screen, down to the last one with a text."""
        rows = [line.rstrip() for line in self._screen.display]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    @property
    def scrolled(self) -> list[str]:
        """The rows above the screen."""
        rows = self._screen.history.top
        texts = ("".join(row[x].data for x in range(max(row, default=-1) + 1)) for row in rows)
        return [text.rstrip() for text in texts]

    @property
    def cursor_is_hidden(self) -> bool:
        return self._screen.cursor.hidden

    @property
    def cursor(self) -> tuple[int, int]:
        """Its row and column."""
        return self._screen.cursor.y, self._screen.cursor.x

    def styles_of(self, text: str) -> tuple[str, bool]:
        """Return the colour of the first character of a text, and whether it is bold."""
        row, line = next((y, line) for y, line in enumerate(self._screen.display) if text in line)
        cell = self._screen.buffer[row][line.index(text)]
        return cell.fg, cell.bold

    def resize(self, columns: int, rows: int) -> None:
        """Change the size, as a window manager does, between any two writes."""
        hidden = self._screen.cursor.hidden
        lines = [line.rstrip() for line in self._screen.display]
        y, x = self.cursor
        last = max([number for number, line in enumerate(lines) if line] + [y])
        kept: list[str] = []
        at = 0
        for number, line in enumerate(lines[: last + 1]):
            if number == y:
                at = len(kept) + (x // columns if self.wraps else 0)
            pieces = [line[start : start + columns] for start in range(0, len(line), columns)]
            kept += (pieces if self.wraps else pieces[:1]) or [""]
        above = max(0, len(kept) - rows)
        # Where not all of it fits, the cursor stays on the screen.
        above = min(above, at)
        self._screen.resize(rows, columns)
        self._screen.reset()
        self._stream.feed("\r\n".join(kept[above : above + rows]))
        self._stream.feed(f"\x1b[{at - above + 1};{x % columns + 1}H")
        self._stream.feed("\x1b[?25l" if hidden else "")
        self._tell_size()

    def _tell_size(self) -> None:
        self.console.size = Size(self._screen.columns, self._screen.lines)


class _Writer(io.StringIO):
    def __init__(self, stream: pyte.Stream) -> None:
        super().__init__()
        self._stream = stream

    def write(self, text: str) -> int:
        # What a terminal's line discipline does.
        self._stream.feed(text.replace("\r\n", "\n").replace("\n", "\r\n"))
        return len(text)

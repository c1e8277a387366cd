"""Prints a table of many rows, no wider than the terminal.

Rich's own tables measure and fold each cell again and again, which takes a second for a few hundred
rows; a list has ten thousand. If the table is too wide, it gives up, in this order: the long form
of cells, optional columns from the last on, and the first column, which becomes a line of its own.
Columns for which there is still no room continue below the others::

    database
      2026-07-01 03:00  vda, vdb
        tar  12.0 GiB

A cell that is wider than the terminal is cut; the text of a last column that ``wraps`` is folded. A
column without any text is not shown. A pipe has room for everything.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from msgspec import Struct
from rich.cells import cell_len
from rich.color import ColorSystem
from rich.console import Console
from rich.style import Style
from rich.text import Text

from virtbackup_async.cli.render.console import escaped, room_of
from virtbackup_async.cli.render.lines import cut, wrapped
from virtbackup_async.model.amounts import size

Row = Mapping[str, str]
Cells = list[str]
Paint = Callable[[str, str], str]

_GAP = "  "
_LEAST_TEXT = 24


class Column(Struct, frozen=True):
    """A column; its head is the key of its cell in a row.

    Attributes:
        short: shortens a cell if the table is too wide.
        may_go: the column is left out if the table is too wide.
        style: returns the style of a cell from its text.
        wraps: a long text is folded into several lines; for the last column alone.
    """

    head: str
    short: Callable[[str], str] | None = None
    may_go: bool = False
    style: Callable[[str], str] | None = None
    wraps: bool = False


class _Shown(Struct, frozen=True):
    """A column with its cells, the head first."""

    column: Column
    cells: Cells
    width: int

    @property
    def least(self) -> int:
        """The width that it needs at least."""
        return min(self.width, _LEAST_TEXT) if self.column.wraps else self.width


def size_or_blank(length_bytes: int | None) -> str:
    """Return the cell of a size; empty where it is not known."""
    return "" if length_bytes is None else size(length_bytes)


def print_columns(console: Console, columns: Sequence[Column], rows: Sequence[Row]) -> None:
    """Write the heads in bold, and the rows; nothing without rows."""
    table = _narrowed(console, columns, rows)
    if not table:
        return
    layout = _Layout(console, _paint_for(console), room_of(console))
    heads, *lines = layout.lines(table)
    console.print(Text("\n".join(heads), style="bold"), soft_wrap=True)
    # Without rich, which would measure each line.
    console.file.write("".join(f"{line}\n" for row in lines for line in row))


def _narrowed(console: Console, columns: Sequence[Column], rows: Sequence[Row]) -> list[_Shown]:
    """Return the columns that have a text, shortened or left out if they are too wide."""
    room = room_of(console)
    table = [
        _shown(column, [escaped(console, row.get(column.head, "")) for row in rows])
        for column in columns
    ]
    table = [shown for shown in table if any(shown.cells[1:])]
    if _width(table) > room:
        table = [_shortened(shown) for shown in table]
    optional = [each for each in table if each.column.may_go]
    while optional and _width(table) > room:
        table.remove(optional.pop())
    return table


def _shown(column: Column, cells: Cells) -> _Shown:
    cells = [column.head, *cells]
    # Nearly always true, and ten times as fast.
    measure = len if all(map(str.isascii, cells)) else cell_len
    return _Shown(column, cells, max(map(measure, cells)))


def _shortened(shown: _Shown) -> _Shown:
    short = shown.column.short
    return _shown(shown.column, list(map(short, shown.cells[1:]))) if short else shown


def _width(table: Sequence[_Shown]) -> int:
    return sum(shown.least + len(_GAP) for shown in table) - len(_GAP)


def _paint_for(console: Console) -> Paint:
    if console.color_system is None or console.no_color:
        return lambda _, text: text
    return lambda style, text: Style.parse(style).render(text, color_system=ColorSystem.STANDARD)


class _Layout(Struct, frozen=True):
    """Where the cells of a table stand; ``room`` is the width of the terminal."""

    console: Console
    paint: Paint
    room: int

    def lines(self, table: Sequence[_Shown]) -> Iterator[list[str]]:
        """Yield the lines of the heads, then of each row."""
        if _width(table) <= self.room:
            return self._band(table, "")
        return self._indented(table)

    def _indented(self, table: Sequence[_Shown]) -> Iterator[list[str]]:
        """Yield the lines below one for each value of the first column."""
        first, *others = table
        bands = [
            self._band(band, _indent(number)) for number, band in enumerate(self._bands(others))
        ]
        above = None
        for name, *parts in zip(first.cells, *bands, strict=True):
            lines = [line for part in parts for line in part if line.strip()]
            yield lines if name in {"", above} else [cut(self.console, name, self.room), *lines]
            above = name or above

    def _bands(self, table: Sequence[_Shown]) -> list[list[_Shown]]:
        """Return the columns in groups, each of which fits below the one before it."""
        bands: list[list[_Shown]] = []
        for shown in table:
            room = self.room - len(_indent(len(bands) - 1))
            if bands and _width([*bands[-1], shown]) <= room:
                bands[-1].append(shown)
            else:
                bands.append([shown])
        return bands

    def _band(self, table: Sequence[_Shown], indent: str) -> Iterator[list[str]]:
        """Yield the lines of columns that stand beside each other."""
        *others, last = table
        room = self.room - len(indent)
        start = sum(min(shown.width, room) + len(_GAP) for shown in others)
        padded = [self._padded(shown, room) for shown in others]
        for line in zip(*padded, self._texts(last, room - start), strict=True):
            before = "".join(f"{cell}{_GAP}" for cell in line[:-1])
            yield [
                f"{indent}{' ' * start if number else before}{text}".rstrip()
                for number, text in enumerate(line[-1])
            ]

    def _padded(self, shown: _Shown, room: int) -> Cells:
        """Return the cells of a column with what fills its width, all but the head painted."""
        cells, width = shown.cells, min(shown.width, room)
        if shown.width > room:
            cells = [cut(self.console, cell, room) for cell in cells]
        if all(map(str.isascii, cells)):
            full = [cell.ljust(width) for cell in cells]
        else:
            full = [cell + " " * (width - cell_len(cell)) for cell in cells]
        if shown.column.style is None:
            return full
        styled = zip(cells[1:], full[1:], strict=True)
        return [full[0], *(self._painted(shown, cell) + all_[len(cell) :] for cell, all_ in styled)]

    def _texts(self, shown: _Shown, room: int) -> Iterator[Cells]:
        """Yield the rows of each cell of a last column, the head unpainted."""
        yield [cut(self.console, shown.cells[0], room)]
        for cell in shown.cells[1:]:
            if shown.width <= room:
                rows = [cell]
            elif shown.column.wraps:
                rows = [row.plain for row in wrapped(self.console, Text(cell), room)]
            else:
                rows = [cut(self.console, cell, room)]
            yield [self._painted(shown, cell, row) for row in rows]

    def _painted(self, shown: _Shown, cell: str, text: str | None = None) -> str:
        text = cell if text is None else text
        style = shown.column.style(cell) if shown.column.style else ""
        return self.paint(style, text) if style and text else text


def _indent(band: int) -> str:
    return _GAP * (2 if band > 0 else 1)

"""Prints a table of many rows, fitted to the width of the terminal.

Rich's own tables measure and fold each cell again and again, which takes a second for a few hundred
rows; a list has ten thousand. If the table is too wide, it gives up, in this order: the long form
of cells, optional columns, and the first column, which becomes a line of its own::

    database
      2026-07-01 03:00  vda, vdb  tar  12.0 GiB

If it is still too wide, the terminal wraps it. A column without any text is not shown.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from msgspec import Struct
from rich.cells import cell_len
from rich.color import ColorSystem
from rich.console import Console
from rich.style import Style
from rich.text import Text

from virtbackup_async.model.amounts import size
from virtbackup_async.reporting.text import printable

Row = Mapping[str, str]
Cells = list[str]
Paint = Callable[[str, str], str]

_GAP = "  "


class Column(Struct, frozen=True):
    """A column; its head is the key of its cell in a row.

    Attributes:
        short: shortens a cell if the table is too wide.
        may_go: the column is left out if the table is too wide.
        style: returns the style of a cell from its text.
    """

    head: str
    short: Callable[[str], str] | None = None
    may_go: bool = False
    style: Callable[[str], str] | None = None


def size_or_blank(length_bytes: int | None) -> str:
    """Return the cell of a size; empty where it is not known."""
    return "" if length_bytes is None else size(length_bytes)


def print_columns(console: Console, columns: Sequence[Column], rows: Sequence[Row]) -> None:
    """Write the heads in bold, and the rows; nothing without rows."""
    table = [(column, _cells(column, rows)) for column in columns]
    table = [(column, cells) for column, cells in table if any(cells)]
    if not table:
        return
    if _width(table) > console.width:
        table = [(column, _shortened(column, cells)) for column, cells in table]
    if _width(table) > console.width:
        table = [(column, cells) for column, cells in table if not column.may_go]
    if _width(table) > console.width:
        head, *lines = _indented(table, _paint_for(console))
    else:
        head, *lines = _lines(table, _paint_for(console))
    console.print(Text(head, style="bold"), soft_wrap=True)
    # Without rich, which would measure each line.
    console.file.write("".join(f"{line}\n" for line in lines))


def _paint_for(console: Console) -> Paint:
    if console.color_system is None or console.no_color:
        return lambda _, text: text
    return lambda style, text: Style.parse(style).render(text, color_system=ColorSystem.STANDARD)


def _cells(column: Column, rows: Sequence[Row]) -> Cells:
    return [printable(row.get(column.head, "")) for row in rows]


def _shortened(column: Column, cells: Cells) -> Cells:
    return list(map(column.short, cells)) if column.short else cells


def _width(table: Sequence[tuple[Column, Cells]]) -> int:
    return sum(_cells_width(column, cells) + len(_GAP) for column, cells in table) - len(_GAP)


def _cells_width(column: Column, cells: Cells) -> int:
    # Nearly always true, and ten times as fast.
    measure = len if all(map(str.isascii, cells)) else cell_len
    return max(map(measure, (column.head, *cells)))


def _lines(table: Sequence[tuple[Column, Cells]], paint: Paint) -> Iterator[str]:
    """Yield the heads, then the rows."""
    padded = []
    for column, cells in table:
        width = _cells_width(column, cells)
        heads, plain = _padded([column.head], width), _padded(cells, width)
        padded.append([*heads, *_painted(column, cells, plain, paint)])
    for line in zip(*padded, strict=True):
        yield _GAP.join(line).rstrip()


def _painted(column: Column, cells: Cells, padded: Cells, paint: Paint) -> Cells:
    """Colour the text of the cells, but not their padding."""
    if column.style is None:
        return padded
    return [
        paint(style, cell) + full[len(cell) :] if (style := column.style(cell)) else full
        for cell, full in zip(cells, padded, strict=True)
    ]


def _indented(table: Sequence[tuple[Column, Cells]], paint: Paint) -> Iterator[str]:
    """Yield the heads, then the rows, below a line for each value of the first column."""
    (first, names), *others = table
    head, *lines = _lines(others, paint)
    yield f"{first.head}\n{_GAP}{head}"
    above = None
    for name, line in zip(names, lines, strict=True):
        if name != above:
            yield name
            above = name
        yield f"{_GAP}{line}"


def _padded(cells: Sequence[str], width: int) -> Cells:
    if all(map(str.isascii, cells)):
        return [cell.ljust(width) for cell in cells]
    return [cell + " " * (width - cell_len(cell)) for cell in cells]

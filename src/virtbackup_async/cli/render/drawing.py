"""Draws a board as lines, each exactly one row of the terminal, however narrow it is.

::

    > web             copying     2 disks
      vda    ##########------  62 %  210.0 MiB/s   0:07 left  2.5 GiB of 4.0 GiB
      vdb    ----------------        waiting
    1 active, 12 waiting, 5 done, 1 failed   120.0 GiB   430.0 MiB/s   3:20

A narrow terminal drops the amount first, then the time left, then the speed. In a low one, the
disks of a domain become one bar, then the domains a count.
"""

from collections.abc import Iterator, Sequence

from msgspec import Struct
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from virtbackup_async.cli.render.board import Board, DiskRow, DomainRow
from virtbackup_async.events import Phase
from virtbackup_async.model.amounts import size
from virtbackup_async.reporting.text import clock, count, percent, printable

_NAME_WIDTH = 24
_DISK_WIDTH = 6
_PERCENT_WIDTH = len(" 100 %")
# Each with the two blanks before it.
_SPEED_WIDTH = len("  1023.9 MiB/s")
_LEFT_WIDTH = len("  1:23:45 left")
_AMOUNT_WIDTH = len("  1023.9 GiB of 1023.9 GiB")
_LEAST_BAR = 10
_MOST_BAR = 40


class Glyphs(Struct, frozen=True):
    """The glyphs to draw with; a word next to each says the same."""

    at_work: str
    undoing: str
    done: str
    failed: str
    warning: str
    full: str
    empty: str
    ellipsis: str


UNICODE = Glyphs("▸", "↩", "✓", "✗", "!", "━", "╌", "…")
ASCII = Glyphs(">", "<", "+", "x", "!", "#", "-", "~")


def glyphs_for(console: Console) -> Glyphs:
    """Return the glyphs that the console's encoding has; ASCII for a pipe."""
    return UNICODE if console.is_terminal and not console.options.ascii_only else ASCII


class Drawing(Struct, frozen=True):
    """Draws boards for a terminal of ``width`` columns and ``height`` rows."""

    width: int
    height: int
    glyphs: Glyphs

    @property
    def _columns(self) -> int:
        # The last column stays free: some terminals wrap as soon as it is written.
        return self.width - 1

    def lines(self, board: Board, now_s: float) -> list[Text]:
        """Return the complete view; never more rows than the terminal has."""
        # One row is for the totals, one for the cursor.
        room = max(1, self.height - 2)
        rows = list(board.rows.values())
        detailed = [line for row in rows for line in self._domain(row, now_s)]
        lines = detailed if len(detailed) <= room else self._folded(rows, room, now_s)
        return [*lines, self._total(board, now_s)]

    def _folded(self, rows: Sequence[DomainRow], room: int, now_s: float) -> list[Text]:
        """Return a row for each domain, and a count of those that do not fit."""
        shown = rows if len(rows) <= room else rows[: room - 1]
        lines = [self._one_row(row, now_s) for row in shown]
        if rest := len(rows) - len(shown):
            lines.append(Text(f"  and {rest} more at work", style="dim"))
        return lines

    def _domain(self, row: DomainRow, now_s: float) -> Iterator[Text]:
        line = self._head(row)
        line.append(count(len(row.disks), "disk") if row.disks else "", style="dim")
        yield self._cut(line)
        for disk in row.disks.values():
            yield self._cut(self._disk(disk, now_s))

    def _one_row(self, row: DomainRow, now_s: float) -> Text:
        line = self._head(row)
        done, total = row.done_bytes, row.total_bytes
        if not total:
            return self._cut(line)
        bar = self._columns - cell_len(line.plain) - _PERCENT_WIDTH - _SPEED_WIDTH
        if bar >= _LEAST_BAR:
            line.append_text(self._bar(done, total, min(_MOST_BAR, bar)))
        line.append(f"{percent(done, total):>4} %")
        speed = sum(disk.speed.bytes_per_s(now_s) or 0 for disk in row.disks.values())
        line.append(f"{f'{size(speed)}/s':>{_SPEED_WIDTH}}")
        return self._cut(line)

    def _head(self, row: DomainRow) -> Text:
        undoing = row.phase is Phase.UNDOING
        style = "yellow" if undoing else "cyan"
        width = max(8, min(_NAME_WIDTH, self.width // 3))
        line = Text(f"{self.glyphs.undoing if undoing else self.glyphs.at_work} ", style=style)
        line.append(self._fit(row.name, width), style="bold")
        line.append(f" {row.phase:<11} ", style=style)
        return line

    def _disk(self, disk: DiskRow, now_s: float) -> Text:
        bar_width, columns = self._layout()
        done, total = disk.done_bytes, disk.total_bytes
        line = Text(f"  {self._fit(disk.name, _DISK_WIDTH)} ")
        line.append_text(self._bar(done, total or 0, bar_width))
        share = "" if total is None else f"{percent(done, total)} %"
        line.append(f"{share:>{_PERCENT_WIDTH}}")
        if word := _word(disk):
            return line.append(f"  {word}")
        for width, fact in tuple(_facts(disk, now_s))[:columns]:
            line.append(f"{fact:>{width}}")
        return line

    def _layout(self) -> tuple[int, int]:
        """Return the width of the bar, and how many columns of facts fit next to it."""
        spare = self._columns - _DISK_WIDTH - len("   ") - _PERCENT_WIDTH
        columns = 0
        for width in (_SPEED_WIDTH, _LEFT_WIDTH, _AMOUNT_WIDTH):
            if spare - width < _LEAST_BAR:
                break
            columns, spare = columns + 1, spare - width
        return max(_LEAST_BAR, min(_MOST_BAR, spare)), columns

    def _bar(self, done_bytes: int, total_bytes: int, width: int) -> Text:
        full = width * done_bytes // total_bytes if total_bytes else 0
        full = min(width, max(0, full))
        bar = Text(self.glyphs.full * full, style="green")
        bar.append(self.glyphs.empty * (width - full), style="dim")
        return bar

    def _total(self, board: Board, now_s: float) -> Text:
        states = (
            (len(board.rows), "active"),
            (len(board.waiting), "waiting"),
            (board.done, "done"),
        )
        words = [f"{number} {state}" for number, state in states]
        words += [f"{board.failed} failed"] if board.failed else []
        line = Text(", ".join(words), style="bold")
        speed = board.speed.bytes_per_s(now_s)
        line.append(f"   {size(board.moved_bytes)}" if board.moved_bytes else "")
        line.append(f"   {size(speed)}/s" if speed is not None else "")
        if board.started_s is not None:
            line.append(f"   {clock(now_s - board.started_s)}")
        return self._cut(line)

    def _cut(self, line: Text) -> Text:
        line.truncate(self._columns, overflow="crop")
        return line

    def _fit(self, name: str, width: int) -> str:
        """Return the name in exactly ``width`` cells, cut with an ellipsis if it is longer."""
        name = printable(name)
        if cell_len(name) > width:
            name = set_cell_size(name, width - 1) + self.glyphs.ellipsis
        return set_cell_size(name, width)


def _word(disk: DiskRow) -> str | None:
    """Return a word to show in place of a speed; None while the disk is copied."""
    if disk.is_done:
        return "done"
    if disk.phase not in {None, Phase.COPYING}:
        return str(disk.phase)
    return "waiting" if disk.total_bytes is None else None


def _facts(disk: DiskRow, now_s: float) -> Iterator[tuple[int, str]]:
    total = disk.total_bytes or 0
    speed = disk.speed.bytes_per_s(now_s)
    yield _SPEED_WIDTH, f"{size(speed)}/s" if speed is not None else ""
    yield _LEFT_WIDTH, f"{clock((total - disk.done_bytes) / speed)} left" if speed else ""
    yield _AMOUNT_WIDTH, f"{size(disk.done_bytes)} of {size(total)}"

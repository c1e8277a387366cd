"""The redrawn rows: nothing of them stays behind, whatever the terminal does to them."""

import pytest
from rich.text import Text

from screen import Terminal
from virtbackup_async.cli.render.region import Region


def rows_of(terminal, number=4):
    """Rows that fill all columns but the last one."""
    width = terminal.console.width - 1
    return [Text(f"{row} ".ljust(width, "=")) for row in range(number)]


def region_on(terminal, number=4):
    region = Region(terminal.console)
    region.print(Text("before"))
    region.start()
    region.draw(rows_of(terminal, number))
    return region


def texts(rows):
    return [row.plain for row in rows]


def test_rows_are_drawn_in_place_and_the_cursor_waits_on_the_first():
    terminal = Terminal(40, 10)
    region = region_on(terminal)
    assert terminal.shown == ["before", *texts(rows_of(terminal))]
    assert terminal.cursor == (1, 0)
    assert terminal.cursor_is_hidden
    region.draw([Text("a"), Text("b")])
    assert terminal.shown == ["before", "a", "b"]
    region.draw([Text("a"), Text("c"), Text("d")])
    assert terminal.shown == ["before", "a", "c", "d"]
    region.stop()
    assert terminal.shown == ["before"]
    assert not terminal.cursor_is_hidden


def test_lines_are_printed_above_and_scroll_away():
    terminal = Terminal(40, 6)
    region = region_on(terminal)
    for number in range(9):
        region.print(Text(f"line {number}"))
        region.draw(rows_of(terminal))
    assert terminal.shown == ["line 7", "line 8", *texts(rows_of(terminal))]
    assert terminal.scrolled == ["before", *(f"line {number}" for number in range(7))]
    region.print(Text("last"))
    region.stop()
    assert terminal.shown[-1] == "last"


def test_a_long_line_above_is_whole():
    terminal = Terminal(20, 8)
    region = region_on(terminal, 2)
    region.print(Text("x" * 45))
    region.draw(rows_of(terminal, 2))
    assert terminal.shown == ["before", "x" * 20, "x" * 20, "x" * 5, *texts(rows_of(terminal, 2))]


@pytest.mark.parametrize("wraps", [True, False])
@pytest.mark.parametrize("height", [8, 24])
@pytest.mark.parametrize(
    "widths", [(80, 40), (40, 80), (120, 80, 40, 41, 200), (80, 20, 80), (41, 40, 39, 38)]
)
def test_a_change_of_the_size_leaves_nothing_behind(widths, height, wraps):
    terminal = Terminal(widths[0], height, wraps=wraps)
    region = region_on(terminal)
    for width in widths[1:]:
        terminal.resize(width, height)
        region.draw(rows_of(terminal))
        below = terminal.shown[terminal.cursor[0] :]
        assert below == texts(rows_of(terminal))
        assert not [line for line in terminal.shown[: terminal.cursor[0]] if "=" in line]
    region.stop()
    assert not [line for line in terminal.shown if "=" in line]


@pytest.mark.parametrize("heights", [(24, 8, 24), (8, 6, 50), (10, 5)])
def test_a_lower_terminal_keeps_the_region(heights):
    terminal = Terminal(60, heights[0])
    region = region_on(terminal)
    for height in heights[1:]:
        terminal.resize(60, height)
        region.draw(rows_of(terminal))
        assert terminal.shown[terminal.cursor[0] :] == texts(rows_of(terminal))


def test_a_size_that_changes_while_rows_are_written_wraps_none_of_them():
    terminal = Terminal(80, 10)
    rows = rows_of(terminal)
    region = region_on(terminal)
    terminal.resize(40, 10)
    region.draw(rows)  # still as wide as before
    assert len(terminal.shown) == 1 + len(rows)
    region.draw(rows_of(terminal))
    assert terminal.shown == ["before", *texts(rows_of(terminal))]


def test_rows_that_did_not_change_are_not_written():
    written = []
    terminal = Terminal(80, 10)
    region = region_on(terminal)
    write = terminal.console.file.write
    terminal.console.file.write = lambda text: (written.append(text), write(text))[1]
    region.draw(rows_of(terminal))
    assert "".join(written) == ""
    changed = rows_of(terminal)
    changed[2] = Text("other")
    region.draw(changed)
    assert "other" in "".join(written)
    assert "=" not in "".join(written)
    assert terminal.shown == ["before", *texts(changed)]

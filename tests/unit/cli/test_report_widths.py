"""No line of a report is wider than the terminal, whatever the names; a pipe loses nothing."""

import fcntl
import io
import os
import re
import shlex
import struct
import termios
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

import pytest
from msgspec import Struct
from msgspec.structs import replace
from rich.cells import cell_len

from fakes.events_of_all_kinds import events_named
from rendered_reports import REPORTS, obeyed
from virtbackup_async.cli import render
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.render.columns import Column, print_columns
from virtbackup_async.cli.render.console import text_console
from virtbackup_async.cli.render.site import print_site
from virtbackup_async.events import (
    ConfigWritten,
    DomainFound,
    FileSystemFound,
    Finding,
    Level,
    StatusShown,
)

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
WIDTHS = (40, 80, 200)
NAMES = {
    "escapes": "\x1b[2J<b>\u202eevil\r\n\x07\u200b\u6f22[red]",
    "long": "n" * 200,
    "wide": "\u4eee\u60f3\u6a5f\u68b0" * 50,
    "combining": "e\u0301\u0308" * 60,
    "alone": "\udce9" * 30,
    "words": "a sentence of several words, `with a command`, as errors have them, " * 6,
    "blank": " ",
    "empty": "",
}
TERMINALS = {
    "colours": ({"TERM": "xterm-256color"}, "utf-8"),
    "no colours": ({"TERM": "xterm-256color", "NO_COLOR": "1"}, "utf-8"),
    "dumb": ({"TERM": "dumb"}, "utf-8"),
    "of the C locale": ({"TERM": "xterm-256color", "LANG": "C"}, "ascii"),
}
WITH_COMMANDS = {"show", "run", "init"}


class Screen(io.TextIOWrapper):
    """A terminal that keeps what was written to it, without its colours."""

    def __init__(self, encoding):
        super().__init__(io.BytesIO(), encoding, errors="backslashreplace", newline="\n")

    def isatty(self):
        return True

    @property
    def shown(self):
        self.flush()
        return COLOUR.sub("", self.buffer.getvalue().decode(self.encoding))


@pytest.fixture(params=TERMINALS)
def terminal(request, monkeypatch):
    """Return a function that opens a terminal of a width."""
    environment, encoding = TERMINALS[request.param]
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    def opened(width):
        screen = Screen(encoding)
        return screen, text_console(screen, width=width)

    return opened


@cache
def of_a_site(name):
    """Return what happens to a site whose guests, disks, groups and errors have one name."""
    events = []
    for event in events_named(name):
        match event:
            case ConfigWritten():
                events.append(replace(event, dry_run=False, found=False))
            case Finding():
                events += [replace(event, level=level) for level in Level]
            case StatusShown():
                guests = [replace(guest, days="vmpefdnu" * 6) for guest in event.guests]
                events.append(replace(event, guests=tuple(guests * 3)))
            case _:
                events.append(event)
    return events


def printed(report, console, events):
    for event in events:
        reports.report_event(report, console, event)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("report", REPORTS)
def test_no_line_is_wider_than_the_terminal(report, width, terminal):
    for kind, name in NAMES.items():
        screen, console = terminal(width)
        printed(REPORTS[report](), console, of_a_site(name))
        lines = screen.shown.split("\n")
        assert len(lines) > 1, kind
        assert obeyed(screen.shown) == set(), kind
        wide = [line for line in lines if cell_len(line) > width]
        # A command is not broken inside a word.
        words = [shlex.split(line.removesuffix(" \\")) for line in wide]
        assert not wide or report in WITH_COMMANDS, (kind, wide)
        assert all(len(word) == 1 for word in words), (kind, wide)


@pytest.mark.parametrize("report", REPORTS)
def test_a_pipe_gets_every_name_as_a_whole(report):
    out = io.StringIO()
    printed(REPORTS[report](), text_console(out), of_a_site("n" * 2000))
    assert "n" * 2000 in out.getvalue()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", NAMES)
def test_what_init_has_found_fits_too(kind, width, terminal):
    screen, console = terminal(width)
    events = of_a_site(NAMES[kind])
    domains = [event for event in events if isinstance(event, DomainFound)]
    file_systems = [event for event in events if isinstance(event, FileSystemFound)]
    print_site(console, NAMES[kind], domains, file_systems)
    assert max(map(cell_len, screen.shown.split("\n"))) <= width
    assert obeyed(screen.shown) == set()


def heads():
    """Return the heads of the columns of all tables."""
    for module in iter_modules(render.__path__):
        names = vars(import_module(f"{render.__name__}.{module.name}")).values()
        tables = [value for value in names if isinstance(value, list | tuple)]
        yield from (each.head for table in tables for each in table if isinstance(each, Column))


def test_a_size_has_one_of_the_fixed_words():
    found = set(heads())
    assert {"disk", "used", "read", "stored", "frees"} <= found
    assert found.isdisjoint({"size", "of", "reads", "data", "virtual", "added"})


class Table(Struct, frozen=True):
    rows: int

    def lines(self, width, **cells):
        out = io.StringIO()
        columns = [Column("domain"), Column("date"), Column("size"), Column("why", wraps=True)]
        row = {"domain": "web", "date": "2026-07-01", "size": "1.0 GiB", "why": "old", **cells}
        print_columns(text_console(out, width=width), columns, [row] * self.rows)
        return out.getvalue().splitlines()


def test_columns_without_room_go_on_below():
    assert Table(2).lines(24, why="it is old and no rule keeps it") == [
        "domain",
        "  date        size",
        "    why",
        "web",
        "  2026-07-01  1.0 GiB",
        "    it is old and no",
        "    rule keeps it",
        "  2026-07-01  1.0 GiB",
        "    it is old and no",
        "    rule keeps it",
    ]


def test_a_long_name_is_cut_by_its_width():
    lines = Table(1).lines(24, domain="\u6f22" * 20)
    assert "\u6f22" * 11 + "~" in lines
    assert "\u6f22" * 20 in "\n".join(Table(1).lines(None, domain="\u6f22" * 20))


def test_a_long_text_is_folded_beside_the_other_columns():
    lines = Table(1).lines(60, why="it is old and no rule of the configuration keeps it")
    assert lines == [
        "domain  date        size     why",
        "web     2026-07-01  1.0 GiB  it is old and no rule of the",
        "                             configuration keeps it",
    ]


@pytest.mark.parametrize("kind", ["dumb", "unknown"])
def test_a_dumb_terminal_has_a_width_too(kind, monkeypatch):
    monkeypatch.setenv("TERM", kind)
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb"), os.fdopen(theirs, "w") as terminal:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 41, 0, 0))
        assert text_console(terminal).width == 41

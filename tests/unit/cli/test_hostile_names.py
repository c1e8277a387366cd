"""Whatever a name holds, no text view sends a terminal anything that it obeys.

Every text of every event is hostile, and all events go through every view and every report.
"""

import io
import types
import typing
import unicodedata
from datetime import UTC, datetime
from enum import Enum

import msgspec
import pytest
from rich.console import Console

from virtbackup_async.cli.render import reports
from virtbackup_async.cli.render.plain import Plain, Quiet
from virtbackup_async.events import Event, Summary
from virtbackup_async.reporting.interface import LogLine, Moment

HOSTILE = "\x1b[2J<b>\u202eevil\r\n\x07\u200b漢[red]"
DATE = "2026-03-01T02:15:00+00:00"
NOW = Moment(datetime(2026, 3, 1, 2, 15, tzinfo=UTC), 0.0)
FIXED = {"state": "good", "command": "backup", "day": "2026-03-01"}
REPORTS = {
    "run": reports.run,
    "preview": reports.preview,
    "clean": lambda: reports.clean(dry_run=False),
    "pins": reports.pins,
    "verify": reports.verify,
    "show": reports.show,
    "diff": reports.diff,
    "stats": reports.stats,
    "findings": reports.findings,
}


def filled(kind, name=""):  # noqa: PLR0911 -- one for each kind of type
    """Return a value of a type with a hostile text in the place of every text."""
    if kind is str:
        return DATE if "date" in name or "time" in name else FIXED.get(name, HOSTILE)
    if kind in {int, float, bool}:
        return kind(1)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return next(iter(kind))
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = typing.get_type_hints(kind)
        return kind(**{key: filled(hints[key], key) for key in kind.__struct_fields__})
    args = [arg for arg in typing.get_args(kind) if arg is not type(None)]
    origin = typing.get_origin(kind)
    if origin in {types.UnionType, typing.Union}:
        return filled(args[0], name)
    if origin is tuple:
        return tuple(filled(arg, name) for arg in args if arg is not ...)
    if origin in {dict, None} or not args:
        return {filled(args[0]): filled(args[1], name)} if args else None
    return (filled(args[0], name),)


EVENTS = [filled(kind) for kind in typing.get_args(Event) if kind is not Summary]
EVENTS.append(filled(Summary))


def obeyed(text):
    """Return the characters that a terminal would obey."""
    unsafe = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
    return {c for c in text if unicodedata.category(c) in unsafe and c != "\n"}


def test_the_events_are_hostile():
    assert len(EVENTS) > 30
    assert sum("evil" in repr(event) for event in EVENTS) > 25


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_sends_a_terminal_nothing_that_it_obeys(name):
    out = io.StringIO()
    report, console = REPORTS[name](), Console(file=out, width=120)
    for event in EVENTS:
        reports.report_event(report, console, event)
    assert out.getvalue()
    assert obeyed(out.getvalue()) == set()


@pytest.mark.parametrize("quiet", [True, False])
def test_lines_send_a_terminal_nothing_that_it_obeys(quiet):
    err = io.StringIO()
    out = Console(file=io.StringIO())
    view = Quiet(out, err, None) if quiet else Plain(out, err, None, progress=True, phases=True)
    for event in EVENTS:
        view.show(event, NOW)
    view.log(LogLine(30, HOSTILE), NOW)
    shown = err.getvalue()
    assert "evil" in shown
    assert obeyed(shown) == set()
    # A line break of a name must not pass for a line of its own.
    assert all(line.startswith("02:15:00 ") for line in shown.splitlines())

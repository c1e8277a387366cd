"""Writes one compact JSON object for each event on stdout, for programs (``--json``).

::

    {"event":"disk_done","time":"2026-07-01T03:00:12.345+02:00","domain":"web", ...}

``event`` is the event's kind, the other keys are its fields (docs/reference/json.md). All
other characters than ASCII are escaped, so no hostile name, and none that is not UTF-8, can break a
line.
"""

import json
from datetime import datetime
from typing import TextIO

import msgspec

from virtbackup_async.events import Event
from virtbackup_async.reporting.interface import LogLine, Moment
from virtbackup_async.reporting.text import level_name, printable

_ENCODER = json.JSONEncoder(separators=(",", ":"))


def json_line(event: Event, wall: datetime) -> str:
    """Return an event as one line, without the line break."""
    head = {"event": event.kind, "time": wall.isoformat(timespec="milliseconds")}
    return _ENCODER.encode(head | msgspec.to_builtins(event))


class JsonLines:
    """Writes events to ``out``, each flushed at once, and the log to ``err``."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self._out = out
        self._err = err

    def show(self, event: Event, at: Moment) -> None:
        self._out.write(json_line(event, at.wall) + "\n")
        self._out.flush()

    def log(self, line: LogLine, at: Moment) -> None:
        self._err.write(f"{at.wall:%H:%M:%S} {level_name(line.level)}: {printable(line.text)}\n")
        self._err.flush()

    def tick(self, at: Moment) -> None:
        """Do nothing: nothing moves between two lines."""

    def pause(self) -> None:
        """Do nothing: the terminal is as it was found."""

    def close(self) -> None:
        """Do nothing: the terminal is as it was found."""

r"""Logs every event but progress, to journald or to a file of JSON lines.

The event thread calls it before the renderer. journald takes one datagram for each entry::

    MESSAGE=web: backup done: ...\n          a value without a line break
    VIRTBACKUP_ERROR\n<8 bytes, little endian: length><value>\n     a value that may have some

Source: systemd.io, "Native Journal Protocol".
"""

import json
import logging
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from msgspec.structs import asdict

from virtbackup_async import events
from virtbackup_async.config.schema import LogSettings
from virtbackup_async.reporting.interface import LogLine, Moment, Renderer
from virtbackup_async.reporting.json_lines import json_line
from virtbackup_async.reporting.sentences import in_words
from virtbackup_async.reporting.text import level_name

JOURNAL_SOCKET = Path("/run/systemd/journal/socket")
FILE_MODE = 0o600
SEND_TIMEOUT_S = 1.0
# A datagram must fit into the socket's buffer; names and errors are far shorter.
VALUE_MAX_BYTES = 4096

_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}
_FAILURES = (
    events.BackupFailed, events.VerifyFailed, events.RepositoryDamaged, events.PendingLeft,
    events.RemovalFailed, events.HookFailed, events.CleanStopped,
)  # fmt: skip


class Sink(Protocol):
    """Takes the entries of the log; raises OSError."""

    def write(self, level: int, event: events.Event | LogLine, at: Moment) -> None: ...

    def close(self) -> None: ...


class EventLog:
    """Passes every event of the wanted level to the sinks."""

    def __init__(self, least: int, sinks: list[Sink]) -> None:
        self._least = least
        self._sinks = sinks

    def show(self, event: events.Event, at: Moment) -> None:
        """Log one event, unless it is progress."""
        if not isinstance(event, events.DiskProgress | events.RepositoryProgress):
            self._write(level_of(event), event, at)

    def log(self, line: LogLine, at: Moment) -> None:
        """Log one line of the program's own log."""
        self._write(line.level, line, at)

    def close(self) -> None:
        for sink in self._sinks:
            sink.close()

    def _write(self, level: int, event: events.Event | LogLine, at: Moment) -> None:
        if level >= self._least:
            for sink in self._sinks:
                sink.write(level, event, at)


class Journal:
    """Writes entries for journald, with an event's fields as ``VIRTBACKUP_<FIELD>``."""

    def __init__(self, path: Path = JOURNAL_SOCKET) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(SEND_TIMEOUT_S)
        try:
            self._socket.connect(os.fspath(path))
        except OSError:
            self._socket.close()
            raise

    def write(self, level: int, event: events.Event | LogLine, at: Moment) -> None:  # noqa: ARG002 -- journald has a clock
        fields = {"PRIORITY": str(priority(level)), "SYSLOG_IDENTIFIER": "virtbackup"}
        self._socket.send(b"".join(_encoded({**fields, **_fields(event)})))

    def close(self) -> None:
        self._socket.close()


class JsonFile:
    """Appends JSON lines to a file; the program's own log lines have the event ``log``."""

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(path, flags, FILE_MODE)

    def write(self, level: int, event: events.Event | LogLine, at: Moment) -> None:
        if isinstance(event, LogLine):
            time = at.wall.isoformat(timespec="milliseconds")
            record = {"event": "log", "time": time, "level": level_name(level)}
            line = json.dumps({**record, "message": event.text}, separators=(",", ":"))
        else:
            line = json_line(event, at.wall)
        # One write for each entry: two runs that log into one file do not mix their lines.
        os.write(self._fd, f"{line}\n".encode())

    def close(self) -> None:
        os.close(self._fd)


def open_event_log(settings: LogSettings) -> EventLog | None:
    """Open the log that the configuration wants; None if it wants none.

    Raises:
        OSError: journald is not listening, or the file cannot be opened.
    """
    sinks: list[Sink] = []
    if settings.journald:
        sinks.append(Journal())
    if settings.file is not None:
        sinks.append(JsonFile(settings.file))
    return EventLog(logging.getLevelName(settings.level.upper()), sinks) if sinks else None


def level_of(event: events.Event) -> int:
    """Return the level of an event, as a number of the ``logging`` module."""
    match event:
        case events.Warned() | events.Finding(level=events.Level.WARNING):
            return logging.WARNING
        case events.Finding(level=events.Level.PROBLEM) | events.Summary(ok=False):
            return logging.ERROR
        case events.PhaseChanged() | events.StoreRequests():
            return logging.DEBUG
        case _:
            return logging.ERROR if isinstance(event, _FAILURES) else logging.INFO


def priority(level: int) -> int:
    """Return syslog's number for a level of the ``logging`` module."""
    return next((_PRIORITIES[known] for known in sorted(_PRIORITIES) if level <= known), 2)


def _fields(event: events.Event | LogLine) -> Mapping[str, str]:
    if isinstance(event, LogLine):
        return {"MESSAGE": event.text}
    values = {key: value for key, value in asdict(event).items() if value is not None}
    fields = {f"VIRTBACKUP_{key.upper()}": _text(value) for key, value in values.items()}
    message = in_words(event) or str(values.get("error") or values.get("message") or event.kind)
    return {"MESSAGE": message, "VIRTBACKUP_EVENT": event.kind, **fields}


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _encoded(fields: Mapping[str, str]) -> Iterator[bytes]:
    for key, text in fields.items():
        value = text.encode(errors="backslashreplace")[:VALUE_MAX_BYTES]
        if b"\n" in value:
            yield key.encode() + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"
        else:
            yield key.encode() + b"=" + value + b"\n"


class Tee:
    """A renderer that logs as well; a failing log hides no event from the other renderer.

    ``event_log`` is set once the configuration is known.
    """

    def __init__(self, renderer: Renderer) -> None:
        self.event_log: EventLog | None = None
        self._renderer = renderer

    def show(self, event: events.Event, at: Moment) -> None:
        # Log first: nothing is shown after the summary.
        if self.event_log is not None:
            try:
                self.event_log.show(event, at)
            except OSError as error:
                self._give_up(error, at)
        self._renderer.show(event, at)

    def log(self, line: LogLine, at: Moment) -> None:
        if self.event_log is not None:
            try:
                self.event_log.log(line, at)
            except OSError as error:
                self._give_up(error, at)
        self._renderer.log(line, at)

    def tick(self, at: Moment) -> None:
        self._renderer.tick(at)

    def pause(self) -> None:
        self._renderer.pause()

    def close(self) -> None:
        log, self.event_log = self.event_log, None
        if log is not None:
            log.close()
        self._renderer.close()

    def _give_up(self, error: OSError, at: Moment) -> None:
        self.event_log = None
        self._renderer.show(
            events.Warned(f"the log of `log:` ends here: {error.strerror or error}"), at
        )

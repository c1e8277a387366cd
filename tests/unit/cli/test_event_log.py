"""The log beside the screen: journald's datagrams, JSON lines, levels, and a log that fails."""

import json
import logging
import socket
import struct

import pytest

from fakes.recorded_run import HOSTILE, at, failed, progress, summary, whole_run
from virtbackup_async.config.schema import LogSettings
from virtbackup_async.events import Phase, PhaseChanged, Warned
from virtbackup_async.reporting.event_log import (
    EventLog,
    Journal,
    JsonFile,
    Tee,
    level_of,
    open_event_log,
    priority,
)
from virtbackup_async.reporting.interface import LogLine


@pytest.fixture
def journald(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "socket"))
        listening.settimeout(10)
        yield listening, tmp_path / "socket"


def entry(datagram):
    """A datagram as journald takes it apart."""
    fields = {}
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        key, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack("<Q", rest[:8])
            value, rest = rest[8 : 8 + length], rest[9 + length :]
        fields[key.decode()] = value.decode()
        datagram = rest
    return fields


def test_journald_gets_an_entry_with_the_events_fields(journald):
    listening, path = journald
    journal = Journal(path)
    log = EventLog(logging.INFO, [journal])
    log.show(failed("db"), at(0))
    fields = entry(listening.recv(65536))
    assert fields["MESSAGE"] == "db: backup failed: the snapshot was refused"
    assert fields["PRIORITY"] == "3"
    assert fields["SYSLOG_IDENTIFIER"] == "virtbackup"
    assert fields["VIRTBACKUP_EVENT"] == "backup_failed"
    assert (fields["VIRTBACKUP_DOMAIN"], fields["VIRTBACKUP_GROUP"]) == ("db", "main")
    assert fields["VIRTBACKUP_CANCELLED"] == "false"
    log.close()


def test_a_line_break_forges_no_field_and_a_long_value_is_cut(journald):
    listening, path = journald
    log = EventLog(logging.INFO, [Journal(path)])
    log.show(Warned("first\nPRIORITY=0" + "x" * 100_000, HOSTILE), at(0))
    fields = entry(listening.recv(1 << 20))
    assert fields["PRIORITY"] == "4"
    assert "\nPRIORITY=0" in fields["MESSAGE"]
    assert len(fields["MESSAGE"].encode()) == 4096
    assert fields["VIRTBACKUP_DOMAIN"] == HOSTILE
    log.close()


def test_a_file_gets_a_json_line_each_but_no_progress(tmp_path):
    path = tmp_path / "virtbackup.log"
    for _ in range(2):
        log = EventLog(logging.INFO, [JsonFile(path)])
        for event, moment in whole_run():
            log.show(event, moment)
        log.log(LogLine(logging.WARNING, "odd"), at(9))
        log.log(LogLine(logging.DEBUG, "dull"), at(9))
        log.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    kinds = [line["event"] for line in lines]
    assert not {"disk_progress", "phase"} & set(kinds)
    assert {"run_started", "warning", "backup_failed", "backup_done", "log"} <= set(kinds)
    assert kinds.count("run_started") == 2
    assert [line["level"] for line in lines if line["event"] == "log"] == ["warning"] * 2
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_log_file_is_not_followed_through_a_link(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic links"):
        open_event_log(LogSettings(file=tmp_path / "link"))


@pytest.mark.parametrize(
    ("event", "level"),
    [
        (PhaseChanged("web", Phase.COPYING), logging.DEBUG),
        (Warned("x"), logging.WARNING),
        (failed(), logging.ERROR),
        (summary(3), logging.ERROR),
        (summary(0), logging.INFO),
    ],
)
def test_how_grave_an_event_is(event, level):
    assert level_of(event) == level


def test_priorities_are_those_of_syslog():
    levels = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)
    assert [priority(level) for level in levels] == [7, 6, 4, 3, 2]


def test_nothing_is_opened_unless_it_is_asked_for():
    assert open_event_log(LogSettings()) is None


class Shown:
    def __init__(self):
        self.events = []
        self.closed = False

    def show(self, event, moment):
        self.events.append(event)

    def log(self, line, moment):
        self.events.append(line)

    def tick(self, moment): ...

    def close(self):
        self.closed = True


class Broken:
    closed = False

    def write(self, level, event, moment):
        raise OSError(28, "No space left on device")

    def close(self):
        self.closed = True


def test_a_log_that_fails_is_told_once_and_hides_nothing():
    shown = Shown()
    view = Tee(shown)
    view.event_log = EventLog(logging.INFO, [Broken()])
    for event in (failed(), progress("web", "vda", 1), summary()):
        view.show(event, at(0))
    assert [type(event).__name__ for event in shown.events] == [
        "Warned", "BackupFailed", "DiskProgress", "Summary",
    ]  # fmt: skip
    assert "No space left" in shown.events[0].message
    view.close()
    assert shown.closed

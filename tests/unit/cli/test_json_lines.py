import json
from io import StringIO
from typing import get_args

from msgspec.structs import fields

from fakes.recorded_run import HOSTILE, at, progress, started, whole_run
from virtbackup_async.events import Event
from virtbackup_async.reporting.interface import LogLine
from virtbackup_async.reporting.json_lines import JsonLines, json_line


def shown(*events):
    out, err = StringIO(), StringIO()
    view = JsonLines(out, err)
    for event, moment in events:
        view.show(event, moment)
    return out.getvalue(), err.getvalue()


def test_each_event_is_one_object_with_its_kind_first_and_all_its_fields():
    out, err = shown(*whole_run())
    objects = [json.loads(line) for line in out.splitlines()]
    assert [list(found)[:2] for found in objects] == [["event", "time"]] * len(whole_run())
    for found, (event, _) in zip(objects, whole_run(), strict=True):
        assert found["event"] == event.kind
        assert set(found) == {"event", "time"} | {field.name for field in fields(event)}
    assert err == ""


def test_time_is_rfc_3339_with_offset_and_milliseconds():
    line = json_line(progress("web", "vda", 1), at(0.5).wall)
    assert json.loads(line)["time"] == "2026-07-01T03:00:00.750+02:00"


def test_a_line_is_compact_ascii_whatever_the_names():
    line = json_line(started(HOSTILE + "\n\udce9日本"), at(0).wall)
    assert line.isascii()
    assert "\n" not in line
    assert ": " not in line
    assert json.loads(line)["domain"] == HOSTILE + "\n\udce9日本"


def test_the_log_goes_to_stderr_escaped():
    out, err = StringIO(), StringIO()
    JsonLines(out, err).log(LogLine(30, "odd \x1b[2J"), at(0))
    assert (out.getvalue(), err.getvalue()) == ("", "03:00:00 warning: odd \\x1b[2J\n")


def test_every_kind_of_event_is_told_apart_by_its_kind():
    kinds = [event.kind for event in get_args(Event)]
    assert len(set(kinds)) == len(kinds)

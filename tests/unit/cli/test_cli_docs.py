"""The docs say what the code does: help, exit codes, JSON events, JSON Schema."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from msgspec.structs import fields

from fakes.recorded_run import whole_run
from virtbackup_async import errors
from virtbackup_async.events import Event
from virtbackup_async.reporting.json_lines import json_line

ROOT = Path(__file__).resolve().parents[3]
SECTION = re.compile(r"^## (\w+)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)


def test_generated_blocks_are_up_to_date():
    argv = [sys.executable, str(ROOT / "scripts" / "update-docs"), "--check"]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 0, ended.stderr


def test_each_event_has_a_section_with_exactly_its_fields():
    sections = SECTION.findall((ROOT / "docs" / "reference" / "json.md").read_text())
    documented = {kind: ROW.findall(body) for kind, body in sections}
    assert documented == {
        event.kind: [field.name for field in fields(event)] for event in get_args(Event)
    }


def test_each_exit_code_of_its_own_belongs_to_one_branch_of_the_errors():
    rows = re.findall(
        r"^\| (\d+) \| `(\w+)` \|",
        (ROOT / "docs" / "reference" / "exit-codes.md").read_text(),
        re.MULTILINE,
    )
    for code, name in rows:
        parent = getattr(errors, name).__mro__[1]
        inherits = getattr(parent, "exit_code", None) == int(code)
        others = [other for other_code, other in rows if other_code == code and other != name]
        assert all(
            issubclass(getattr(errors, other), getattr(errors, name)) or inherits
            for other in others
        ), f"{code} is taken twice: {name} and {others}"


@pytest.mark.parametrize("number", range(len(whole_run())))
def test_the_schema_names_exactly_the_keys_of_a_line(number):
    event, moment = whole_run()[number]
    schema = json.loads((ROOT / "docs" / "reference" / "json-schema.json").read_text())
    shape = schema["$defs"][type(event).__name__]
    line = msgspec.json.decode(json_line(event, moment.wall))
    assert list(line) == list(shape["properties"]) == shape["required"]
    assert shape["properties"]["event"]["const"] == line["event"]

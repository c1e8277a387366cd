"""The JSON Schema says of each value what the reader of the file says."""

import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from virtbackup_async.compat import config as compat
from virtbackup_async.config import sections
from virtbackup_async.config.json_schema import config_schema
from virtbackup_async.config.loading import examine_text
from virtbackup_async.config.values import MAX_COUNT, WrongValueError
from virtbackup_async.model.packager import PACKAGER_TYPES

ROOT = Path(__file__).parents[3]
SAMPLES = [ROOT / "config.yml", *sorted((ROOT / "tests/compat/data/config").glob("*.yml"))]
TABLES = [
    sections.TOP_KEYS, sections.GROUP_KEYS, sections.HOST_KEYS, sections.HOOK_KEYS,
    sections.NOTIFY_KEYS, sections.LOG_KEYS, sections.REPORT_KEYS,
]  # fmt: skip
CHECKS = {key: check for table in TABLES for key, check in table.items()}
VALUES = [
    "0640", "weekly",
    True, False, 0, 1, -1, 9, MAX_COUNT, MAX_COUNT + 1, 1.5, "", " ", "x", "5", "*", "none", "NONE",
    "tar", "zst", "info", "failure", "idle", "pull", "/a", "/", "a/b", "a\0b", "/a\0", "two words",
    "30d", [], ["a"], ["a", ""], ["", "a"], ["a", "b\0"], [""], [1], [None], ["a", 1], {}, {"a": 1},
    "s3://backups", "s3://backups/", "s3://b", "S3://backups", "s3://a@backups", "ftp://backups",
    "ssh://nas/srv", "ssh://nas", "ssh://a@nas:22/srv/b/", "ssh://a:b@nas/srv", "ssh://-x/srv",
    "s3://backups/..", "s3://backups/a/b", {"url": "s3://backups"}, {"url": "/a"}, {"url": 5},
    {"url": "s3://backups", "region": None, "endpoint": "http://h:1", "create_bucket": True},
    {"url": "s3://backups", "endpoint": "h"}, {"url": "s3://backups", "key": "x"}, {"region": "a"},
    "2%", "0.5%", "100%", "101%", "all", "10GiB", "10 KB", "10XB", "GiB",
]  # fmt: skip
SCHEMA = Draft202012Validator(config_schema())


def accepts(check, value):
    try:
        check(value)
    except WrongValueError:
        return False
    return True


def errors(text):
    return [error.message for error in SCHEMA.iter_errors(yaml.safe_load(text))]


def test_schema_is_one_and_can_be_written():
    Draft202012Validator.check_schema(config_schema())
    assert json.loads(json.dumps(config_schema())) == config_schema()


@pytest.mark.parametrize("key", CHECKS)
def test_each_check_takes_what_its_schema_says(key):
    schema = Draft202012Validator(CHECKS[key].schema)
    accepted = [value for value in VALUES if accepts(CHECKS[key], value)]
    assert accepted == [value for value in VALUES if schema.is_valid(value)]
    assert 0 < len(accepted) < len(VALUES)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_samples_are_valid(sample):
    assert errors(sample.read_text()) == []


@pytest.mark.parametrize(
    "text",
    [
        "thread: 1",
        "threads: many",
        "groups: {g: {taget: /t}}",
        "groups: {g: {hosts: [{disks: [vda]}]}}",
        "groups: {g: {hosts: [{host: }]}}",
        "groups: {g: {hosts: [5]}}",
        "groups: {g: text}",
        "groups: []",
        "default: {hourly: '5'}",
        "default: {hooks: {befor: x}}",
        "notify: {on: never}",
        "log: {level: loud}",
        "groups: {g: {packager: zstd, packager_opts: {compression: gz}}}",
        "groups: {g: {packager: zstd, packager_opts: {compression_lvl: 23}}}",
        "groups: {g: {packager: tar, packager_opts: {compression: lz4}}}",
        "groups: {g: {packager: directory, packager_opts: {compression_lvl: 1}}}",
    ],
)
def test_what_the_reader_objects_to_is_invalid(text):
    _, problems = examine_text(text.encode(), Path("x.yml"))
    assert problems.errors or problems.warnings
    assert errors(text)


@pytest.mark.parametrize("key", [*sections.TOP_KEYS, *sections.GROUP_KEYS])
def test_nothing_behind_a_key_is_valid(key):
    section = {key: None}
    raw = section if key in sections.TOP_KEYS else {"groups": {"g": section}}
    assert SCHEMA.is_valid(raw)


def test_old_keys_are_there_and_deprecated():
    schema = config_schema()
    group = schema["$defs"]["group"]["properties"]
    old = [schema["properties"][key] for key in compat.RENAMED_AT_THE_TOP]
    old += [group[key] for key in (*compat.RENAMED_IN_GROUPS, *compat.OLD_COMPRESSION)]
    assert all(entry["deprecated"] for entry in old)
    assert len(old) == 4


def test_each_packager_has_its_options():
    conditions = config_schema()["$defs"]["group"]["allOf"]
    kinds = [condition["if"]["properties"]["packager"]["const"] for condition in conditions]
    assert kinds == [*PACKAGER_TYPES]

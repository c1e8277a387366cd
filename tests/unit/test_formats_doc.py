"""docs/reference/formats.md: its examples are read, its tables name the keys of the files."""

import re
from pathlib import Path

import msgspec
import pytest
import yaml

from virtbackup_async.catalog import (
    definition_file,
    heads,
    history,
    host_notes,
    pending_file,
    raw_json,
)
from virtbackup_async.config.loading import examine_text
from virtbackup_async.model import names
from virtbackup_async.model.storage_location import StorageLocation

TEXT = (Path(__file__).parents[2] / "docs/reference/formats.md").read_text()


def example(kind):
    pattern = rf"<!-- loaded by \S+: {kind} -->\n```json\n(.*?)```"
    return re.search(pattern, TEXT, re.DOTALL).group(1).encode()


def section(title):
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE).group(1)


def documented(title):
    return set(re.findall(r"^\| `(\w+)` \|", section(title), re.MULTILINE))


def keys(wire):
    return {field.encode_name for field in msgspec.structs.fields(wire)}


@pytest.mark.parametrize(
    ("kind", "module"), [("definition", definition_file), ("pending", pending_file)]
)
def test_example_is_what_we_write(kind, module):
    name = msgspec.json.decode(example(kind))["name"]
    path = Path(f"/t/web/{name}{module.SUFFIX}")
    assert module.dumps(module.loads(example(kind), path)) == example(kind)


def test_definition_tables_have_all_keys():
    wanted = keys(definition_file.DefinitionWire) | keys(definition_file.StateWire)
    wanted |= keys(definition_file.ReadingWire)
    assert documented("Definition") == wanted


def test_pending_table_has_all_keys():
    assert documented("Pending") == keys(pending_file.DiskWire)
    described = keys(pending_file.PendingWire) - {"disks"}
    assert described - {"quiesce", "socket", "checkpoint"} <= keys(definition_file.DefinitionWire)
    assert all(f"`{key}`" in section("Pending") for key in described)


def test_the_note_is_what_we_write():
    path = Path("/s/undo/20260304-021500_3_web.5e5f7a1d.note")
    assert host_notes.dumps(host_notes.loads(example("note"), path)) == example("note")
    assert documented("Note") == keys(host_notes.NoteWire)


def test_the_memory_of_a_target_is_what_we_write():
    wire = heads.loads(example("memory"), Path("/s/heads/t/web.json"))
    assert raw_json.dump(wire) == example("memory")
    assert documented("Memory of a target") == keys(heads.MemoryWire)
    assert f" {heads.SEEN_MAX}" in section("Memory of a target")


def test_the_history_is_what_we_write():
    history_run = history.loads(example("history")).runs[0]
    assert history.dumps(history_run) == example("history")
    rows = re.findall(r"^\| (`.*?) \|", section("History"), re.MULTILINE)
    named = set(re.findall(r"`(\w+)`", " ".join(rows)))
    assert named == keys(history.RunWire) | keys(history.DomainWire)
    for limit in (history.TEXT_MAX, history.PHASES_MAX):
        assert f" {limit}" in section("History")
    usual = history.USUAL_LIMITS
    for length in (usual.file_bytes, usual.kept_bytes, 2 * usual.file_bytes):
        assert f" {length >> 20} MiB" in section("History")


def test_the_configuration_copy_is_a_configuration():
    found = re.search(r"configuration copy -->\n```yaml\n(.*?)```", TEXT, re.DOTALL)
    config, problems = examine_text(found[1].encode(), Path("copy.yml"))
    problems.raise_errors()
    assert {"threads": 2, "uri": "qemu:///system"}.items() <= yaml.safe_load(found[1]).items()
    assert config.groups["production"].includes("web")


@pytest.mark.parametrize("page", ["reference/formats.md", "explanation/security.md"])
def test_each_test_that_a_promise_names_is_there(page):
    root = Path(__file__).parents[2]
    named = re.findall(r"`(test_\w+\.py)(?:::(\w+))?`", (root / "docs" / page).read_text())
    assert named
    for file, function in named:
        found = [path.read_text() for path in (root / "tests").rglob(file)]
        assert found, file
        assert any(f"def {function}(" in text for text in found) or not function, function


def test_limits_are_those_of_the_code():
    assert f"at most {names.NAME_MAX_BYTES} bytes" in TEXT
    assert names.domain_directory(StorageLocation.of("/t"), "../x").name in TEXT

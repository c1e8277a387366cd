"""Definition and pending files that are damaged, hostile or from the future."""

import contextlib
import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtbackup_async.catalog import definition_file, pending_file, raw_json
from virtbackup_async.errors import DefinitionError
from virtbackup_async.model.backup import Definition, Pending
from virtbackup_async.model.target_file import TargetFile

NAME = "20191001-003401_3_web"
DEFINITION_PATH = Path(f"/t/web/{NAME}.json")
PENDING_PATH = Path(f"/t/web/{NAME}.json.pending")
IMAGE = {
    "file": f"{NAME}_vda.qcow2",
    "source": "/i/vda.qcow2",
    "format": "qcow2",
    "size_bytes": 10,
    "data_bytes": 5,
    "stored_bytes": 3,
    "digest": "blake3-256k:00",
}
COMMON = {
    "name": NAME,
    "domain_id": 3,
    "domain_name": "web",
    "domain_xml": "<domain/>",
    "version": "1.0.0",
    "date": 1569890041,
    "packager": {"type": "tar", "opts": {"compression": "gz"}},
}
DEFINITION = COMMON | {"disks": {"vda": IMAGE["file"]}, "images": {"vda": IMAGE}}
DISK = {"src": "/i/vda.qcow2", "type": "qcow2", "snapshot": "/i/vda.s", "target": IMAGE["file"]}
PENDING = COMMON | {"disks": {"vda": DISK}}


def read_definition(**changed):
    data = json.dumps(DEFINITION | changed).encode()
    return definition_file.loads(data, DEFINITION_PATH)


def read_pending(**changed):
    return pending_file.loads(json.dumps(PENDING | changed).encode(), PENDING_PATH)


def test_unchanged_samples_are_fine():
    assert read_definition().records["vda"].image.size_bytes == 10
    assert read_pending().disks["vda"].snapshot == "/i/vda.s"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"date": "soon"}, "date: expected 'int', got 'str'"),
        ({"date": True}, "date: expected 'int', got 'bool'"),
        ({"date": -1}, "date -1 is out of range"),
        ({"date": 10**15}, "date 1000000000000000 is out of range"),
        ({"domain_name": None}, "domain_name: expected 'str', got 'null'"),
        ({"packager": "tar"}, "packager: expected 'object', got 'str'"),
        ({"packager": {}}, "packager: object missing required field 'type'"),
        ({"version": 3}, "version is 3, expected three numbers"),
        ({"version": "next"}, "version is 'next', expected three numbers"),
        ({"version": "2.0.0"}, r"written by a newer version \(2.0.0\)"),
        ({"version": "10.0"}, r"written by a newer version \(10.0\)"),
        ({"name": "../x"}, "name '../x' is not a file name"),
        ({"name": "20191001-003401_3_db"}, "holds the backup 20191001-003401_3_db"),
    ],
)
@pytest.mark.parametrize("read", [read_definition, read_pending])
def test_wrong_field_is_named(read, changed, message):
    with pytest.raises(DefinitionError, match=message) as caught:
        read(**changed)
    assert str(caught.value).startswith(f"/t/web/{NAME}.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "file", ["/etc/shadow", "../db/x", "..", "", "20200101-000000_1_other_vda.qcow2", "x\ny"]
)
def test_file_of_somewhere_else_is_refused(file):
    with pytest.raises(DefinitionError, match=r"disks\.vda .* is not a file of this backup"):
        read_definition(disks={"vda": file}, images={})
    with pytest.raises(DefinitionError, match=r"disks\.vda\.target .* is not a file"):
        read_pending(disks={"vda": DISK | {"target": file}})
    with pytest.raises(DefinitionError, match=r"backing\[0\]\.file .* is not a file"):
        read_definition(images={"vda": IMAGE | {"backing": [IMAGE | {"file": file}]}})


@pytest.mark.parametrize("file", ["/etc/shadow", "../db/x", "20200101-000000_1_other_nvram.fd"])
def test_state_file_of_somewhere_else_is_refused(file):
    state = IMAGE | {"file": file, "kind": "nvram"}
    with pytest.raises(DefinitionError, match=r"state_files\[0\]\.file .* is not a file of"):
        read_definition(state_files=[state])
    with pytest.raises(DefinitionError, match=r"state_files .* is not a file of this backup"):
        read_pending(state_files=[file])


@pytest.mark.parametrize(
    "path",
    ["/etc/shadow", "/i/web.qcow2", "/i/web.qcow2.vbk-0a0b0c0d", "web.vbk-0a0b0c0d.scratch", "/"],
)
def test_undoing_a_pull_removes_nothing_but_what_is_named_as_ours(path):
    with pytest.raises(DefinitionError, match="not a scratch image's name"):
        read_pending(disks={"vda": DISK | {"scratch": path}})
    with pytest.raises(DefinitionError, match="not the name of a backup job's socket"):
        read_pending(socket=path)
    pending = read_pending(
        disks={"vda": DISK | {"scratch": "/i/web.vbk-0a0b0c0d.scratch"}},
        socket="/c/vbk-0a0b0c0d.sock",
    )
    assert pending.pull_job.scratch == {"vda": Path("/i/web.vbk-0a0b0c0d.scratch")}


def test_state_of_a_kind_to_come_is_a_file_like_any_other():
    state = IMAGE | {"file": f"{NAME}_x", "kind": "future", "more": 1}
    (record,) = read_definition(state_files=[state]).state_files
    assert (record.kind, record.owner, record.image.file) == ("future", None, f"{NAME}_x")


def test_image_of_another_disk_is_refused():
    with pytest.raises(DefinitionError, match=r"images\.vdb\.file is not disks\.vdb"):
        read_definition(images={"vdb": IMAGE})


def test_negative_size_is_refused():
    with pytest.raises(DefinitionError, match="size_bytes"):
        read_definition(images={"vda": IMAGE | {"size_bytes": -1}})


def test_domain_ids_of_virt_backup_may_differ_within_a_backup():
    """It asks libvirt for the id anew for each name, and the domain may have stopped meanwhile."""
    file = "20191001-003401_-1_web_vda.qcow2"
    definition = read_definition(version="0.5.6", disks={"vda": file}, images={})
    assert definition.disks == {"vda": file}
    with pytest.raises(DefinitionError):
        read_definition(disks={"vda": file}, images={})


def test_symlink_pipe_and_giant_are_not_read(tmp_path, monkeypatch):
    real = tmp_path / "real"
    real.write_bytes(b"x" * 11)
    link = tmp_path / "link"
    link.symlink_to(real)
    with pytest.raises(OSError, match="a symlink, not followed"):
        raw_json.read_bytes(TargetFile.of(link))
    with pytest.raises(DefinitionError, match="not a regular file"):
        raw_json.read_bytes(TargetFile.of(Path("/dev/null")))
    monkeypatch.setattr(raw_json, "FILE_MAX_BYTES", 10)
    with pytest.raises(DefinitionError, match="larger than 10 B"):
        raw_json.read_bytes(TargetFile.of(real))
    real.write_bytes(b"x" * 10)
    assert raw_json.read_bytes(TargetFile.of(real)) == b"x" * 10


@given(st.integers(min_value=0, max_value=len(json.dumps(DEFINITION))))
def test_truncated_file_is_refused(length):
    data = json.dumps(DEFINITION).encode()[: -1 - length]
    with pytest.raises(DefinitionError):
        definition_file.loads(data, DEFINITION_PATH)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KEYS = sorted({*DEFINITION, *PENDING, "compression", "compression_lvl", "tar", "skipped", "uuid"})
VERSIONS = st.sampled_from(["0.1.0", "0.4.0", "0.5.2", "1.0.0"])


@given(st.sampled_from([DEFINITION, PENDING]), VERSIONS, st.sampled_from(KEYS), JSON)
def test_any_value_of_any_field_is_read_or_refused(sample, version, key, value):
    data = msgspec.json.encode(sample | {"version": version} | {key: value})
    for module, path in ((definition_file, DEFINITION_PATH), (pending_file, PENDING_PATH)):
        with contextlib.suppress(DefinitionError):
            assert isinstance(module.loads(data, path), Definition | Pending)


@given(st.binary(max_size=50))
def test_any_bytes_are_refused(data):
    with pytest.raises(DefinitionError):
        definition_file.loads(data, DEFINITION_PATH)


# Newer Pythons decode 5,000 levels, and then it is no text.
@pytest.mark.parametrize(("depth", "said"), [(5_000, "."), (100_000, "nested too deeply")])
def test_deep_nesting_is_refused(depth, said):
    nested = json.dumps(DEFINITION | {"uuid": "@"}).replace('"@"', "[" * depth + "]" * depth)
    with pytest.raises(DefinitionError, match=said):
        definition_file.loads(nested.encode(), DEFINITION_PATH)


@pytest.mark.parametrize(
    "snapshot", ["/etc/passwd", "/i/vda.qcow2", "/i/other.s", "/i/../etc/vda.s", "vda.s", ""]
)
def test_snapshot_that_is_no_overlay_of_its_image_is_refused(snapshot):
    """Undoing the backup removes the overlay, as root."""
    with pytest.raises(DefinitionError, match="not an overlay"):
        read_pending(disks={"vda": DISK | {"snapshot": snapshot}})

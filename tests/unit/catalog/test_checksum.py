"""A definition that was changed by a fault of a disk is never taken for what was written."""

import json
import random
import re
from pathlib import Path

import pytest
from blake3 import blake3
from msgspec.structs import replace

from virtbackup_async import __version__
from virtbackup_async.catalog import definition_file
from virtbackup_async.catalog.amendment import amend_definition
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.errors import DefinitionError
from virtbackup_async.model.backup import (
    Definition,
    DiskRecord,
    ImageRecord,
    Packager,
    StateRecord,
    Verification,
)
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.model.target_file import TargetFile
from virtbackup_async.model.tracking import Reading

NAME = "20260301-021500_3_web"
XML = (
    "<domain type='kvm' id='3'>\n  <name>web</name>\n  <memory unit='KiB'>1048576</memory>\n"
    '  <title>Bücher \U0001f4da &amp; "Co"</title>\n  <on_crash>destroy</on_crash>\n'
    "  <devices><interface type='network'><mac address='52:54:00:8e:01:02'/></interface>"
    "</devices>\n</domain>\n"
)
IMAGE = ImageRecord(f"{NAME}_vda.raw", "/i/vda.qcow2", "raw", 1 << 30, 512, 300, "blake3-256k:a0")
BASE = ImageRecord(f"{NAME}_vda-backing1.raw", "/i/base.raw", "raw", 99, 9, 8, "blake3-256k:0f")
STATE = ImageRecord(f"{NAME}_nvram.fd", "/n/web.fd", "raw", 9, 9, 9, "blake3-256k:02")
READING = Reading(
    checkpoint="vbk-1", base="20260228-021500_3_web", reason=None, full_date=1772000000,
    read_bytes=77, audited_bytes=7, audit_failed=False, image_id="1:2",
)  # fmt: skip
DEFINITION = Definition(
    name=NAME, domain_id=3, domain_name="web", domain_xml=XML, disks={"vda": IMAGE.file},
    version=__version__, date=1772331300, packager=Packager("tar", {"compression": "gz"}),
    domain_uuid="b9ef5a09-0000-4000-8000-000000000001",
    records={"vda": DiskRecord(IMAGE, (BASE,), READING)}, skipped={"vdb": "a network disk"},
    quiesced=True, state="running", method="pull", frozen_ms=41, pinned=True,
    verified=Verification(1772590500, ok=True, digests=True),
    state_files=(StateRecord("nvram", STATE, "libvirt-qemu"),),
)  # fmt: skip
FLIPS = 4000


@pytest.fixture
def path(tmp_path):
    directory = tmp_path / "web"
    directory.mkdir()
    (directory / f"{NAME}.tar.gz").touch()
    path = directory / f"{NAME}.json"
    path.write_bytes(definition_file.dumps(DEFINITION))
    return path


def refusal(data, path):
    """Say why a definition is refused; None if it is not."""
    try:
        definition_file.loads(data, path)
    except DefinitionError as error:
        return str(error)
    return None


def flipped(data, bit):
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


async def test_each_flipped_bit_is_noticed(path):
    """Also in a definition that was amended, and whatever the bit does to the name of a key."""
    await amend_definition(TargetFile.of(path), {"verified": None})
    data = path.read_bytes()
    bits = random.Random(7).choices(range(len(data) * 8), k=FLIPS)
    start = data.index(b'"checksum"')
    bits += range(start * 8, (start + len(b'"checksum"')) * 8)
    refused = [refusal(flipped(data, bit), path) for bit in bits]
    passed = [bit for bit, reason in zip(bits, refused, strict=True) if reason is None]
    assert passed == []
    assert all(reason.startswith(str(path)) and "\n" not in reason for reason in refused)
    assert sum("checksum" in reason for reason in refused) > FLIPS / 4
    assert refusal(data, path) is None


def test_checksum_is_that_of_the_documentation(path):
    raw = json.loads(path.read_bytes())
    text = (Path(__file__).parents[3] / "docs/reference/formats.md").read_text()
    code = re.search(r"### Checksum\n.*?```python\n(.*?)```", text, re.DOTALL)[1]
    names = {"json": json, "blake3": blake3, "definition": dict(raw)}
    exec(code, names)  # noqa: S102 -- what the documentation gives to other programs
    assert names["checksum"] == raw["checksum"]


def test_order_and_indentation_do_not_matter(path):
    raw = json.loads(path.read_bytes())
    other = json.dumps(dict(reversed(raw.items())), ensure_ascii=True).encode()
    assert definition_file.loads(other, path) == DEFINITION


def test_key_that_nobody_knows_counts(path):
    raw = json.loads(path.read_bytes()) | {"from_the_future": [1, {"a": None}]}
    assert "checksum" in refusal(json.dumps(raw).encode(), path)


def test_trusted_definition_is_read_all_the_same(path):
    data = path.read_bytes().replace(b"1048576", b"9048576")
    assert "--trust-definition" in refusal(data, path)
    assert "9048576" in definition_file.loads(data, path, trusted=True).domain_xml
    with pytest.raises(DefinitionError):
        definition_file.loads(data.replace(b'"date"', b'"dave"'), path, trusted=True)


@pytest.mark.parametrize("version", ["0.5.6", "1.0.0"])
async def test_older_definition_has_none(path, version):
    raw = json.loads(path.read_bytes())
    del raw["checksum"]
    path.write_text(json.dumps(raw | {"version": version}))
    assert refusal(path.read_bytes(), path) is None
    await amend_definition(TargetFile.of(path), {"pinned": False})
    assert "checksum" not in json.loads(path.read_text())
    assert not definition_file.loads(path.read_bytes(), path).pinned


@pytest.mark.parametrize("version", ["1.1.0", "1.1.0.post3", "1.2", "1.10.0"])
@pytest.mark.parametrize("lost", [{}, {"checksum": None}, {"checksum": 3}, {"checksum": "blake3:"}])
def test_checksum_that_must_be_there_and_is_lost_is_damage(path, version, lost):
    raw = json.loads(path.read_bytes()) | {"version": version}
    del raw["checksum"]
    assert refusal(json.dumps(raw | lost).encode(), path) is not None


async def test_amendment_renews_it_and_does_not_cover_up_damage(path):
    await amend_definition(TargetFile.of(path), {"pinned": False})
    assert definition_file.loads(path.read_bytes(), path) == replace(DEFINITION, pinned=False)
    damaged = path.read_bytes().replace(b"1048576", b"9048576")
    path.write_bytes(damaged)
    with pytest.raises(DefinitionError, match="checksum"):
        await amend_definition(TargetFile.of(path), {"pinned": True})
    assert path.read_bytes() == damaged


async def test_damaged_definition_is_a_problem_and_no_backup(path):
    catalog = Catalog(StorageLocation.of(path.parent.parent))
    assert [found.definition for found in (await catalog.scan()).complete] == [DEFINITION]
    path.write_bytes(path.read_bytes().replace(b"1048576", b"9048576"))
    scan = await catalog.scan()
    assert scan.complete == ()
    assert [(problem.path, problem.domain) for problem in scan.problems] == [
        (TargetFile.of(path), "web")
    ]
    assert scan.strays == ()

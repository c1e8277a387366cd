"""What old versions wrote is read as they meant it."""

import copy
import json
from pathlib import Path

import pytest
from blake3 import blake3

from fakes.memory_storage import MemoryStorage
from virtbackup_async.catalog import definition_file, heads, history, host_notes, pending_file
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.compat import config as compat_config
from virtbackup_async.compat import definition as compat_definition
from virtbackup_async.compat import pending as compat_pending
from virtbackup_async.compat.steps import parse_version
from virtbackup_async.errors import DefinitionError
from virtbackup_async.model.backup import CopiedFrom, Original, Packager
from virtbackup_async.model.qcow2_options import Qcow2Options
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository.storage.repository_file import STORAGES

DATA = Path(__file__).parent / "data"
DEFINITIONS = sorted(DATA.glob("*/definition*.json"))
PENDINGS = sorted(DATA.glob("*/pending*.json"))


def label(path):
    return f"{path.parent.name}-{path.stem}"


def test_there_are_samples():
    assert len(DEFINITIONS) >= 5
    assert len(PENDINGS) >= 3


@pytest.mark.parametrize("path", [*DEFINITIONS, *PENDINGS], ids=label)
def test_old_data_becomes_what_virt_backup_makes_of_it(path):
    raw = json.loads(path.read_text())
    before = copy.deepcopy(raw)
    module = compat_pending if path in PENDINGS else compat_definition
    upgraded = module.upgrade(raw)
    assert raw == before
    assert upgraded["version"] == "1.0.0"
    expected = json.loads(path.with_suffix(".as_0.5.6").read_text())
    assert {**upgraded, "version": ""} == {**expected, "version": ""}
    assert module.upgrade(upgraded) == upgraded


@pytest.mark.parametrize("path", DEFINITIONS, ids=label)
def test_old_definition_is_read(path):
    definition = definition_file.loads(path.read_bytes(), path)
    assert definition.domain_name == "test-domain"
    assert definition.version == json.loads(path.read_text())["version"]
    assert definition.records == {}


def test_a_note_of_this_host_is_read():
    (path,) = (DATA / "1.1.0").glob("*.note")
    note = host_notes.loads(path.read_bytes(), path)
    disk = note.pending.disks["vda"]
    assert note.pending_path == Path("/mnt/backups/web/20260304-021500_3_web.json.pending")
    assert disk.snapshot == "/var/lib/libvirt/images/web.qcow2.vbk-5e5f7a1d"
    assert disk.committed
    assert note.pending.quiesce


@pytest.mark.parametrize("version", ["1.0.0", "1.1.0"])
def test_older_definition_of_ours_is_read(version):
    path = DATA / version / "20260301-021500_3_web.json"
    definition = definition_file.loads(path.read_bytes(), path)
    assert definition.version == version
    assert definition.records["vda"].backing[0].source == "/var/lib/libvirt/images/debian.qcow2"
    assert [state.kind for state in definition.state_files] == ["nvram", "tpm"]


@pytest.mark.parametrize("path", PENDINGS, ids=label)
def test_old_pending_file_is_read(path):
    pending = pending_file.loads(path.read_bytes(), path)
    disk = pending.disks["vda"]
    assert disk.type == "qcow2"
    assert disk.snapshot == "/tmp/test/vda.1569890041"
    assert disk.target == "20191001-003401_3_test-domain_vda.qcow2"


def test_why_a_guest_was_not_frozen_is_read():
    path = DATA / "not-quiesced" / "20261129-210000_3_paused.json"
    definition = definition_file.loads(path.read_bytes(), path)
    assert (definition.quiesced, definition.not_quiesced) == (False, "guest is paused")


def test_a_note_is_read():
    path = DATA / "note-1" / "20261130-040000_3_web.json"
    definition = definition_file.loads(path.read_bytes(), path)
    assert definition.note == "before the upgrade to Debian 14 — ask Zoë"
    assert definition.pinned


def test_where_a_copy_was_made_is_read():
    path = DATA / "copy-1" / "20261130-064500_7_web.json"
    definition = definition_file.loads(path.read_bytes(), path)
    origin = CopiedFrom("/mnt/backups", "6f0c4a0e9f596f3f3a0c9d110c2c7e3c", 1795996800)
    assert definition.copied_from == origin


async def test_target_of_0_5_6_is_found():
    scan = await Catalog(StorageLocation.of(DATA / "0.5.6" / "target")).scan()
    assert scan.problems == ()
    assert {found.definition.domain_name: found.definition.packager for found in scan.complete} == {
        "directory": Packager("directory"),
        "tar": Packager("tar"),
        "tar gz": Packager("tar", {"compression": "gz", "compression_lvl": 6}),
        "tar xz": Packager("tar", {"compression": "xz", "compression_lvl": 3}),
        "zstd": Packager("zstd", {"compression_lvl": 3}),
    }
    (broken,) = scan.pending
    assert broken.pending.version == "0.5.6"
    assert broken.pending.disks["vda"].target == f"{broken.pending.name}_vda.raw"


@pytest.mark.parametrize(
    ("older", "newer"),
    [("0.5.2", "0.5.10"), ("0.1.3.post3", "0.1.4"), ("0.9", "0.10"), ("0.99.99", "1.0.0")],
)
def test_versions_are_compared_by_number(older, newer):
    assert parse_version(older) < parse_version(newer)


@pytest.mark.parametrize("version", [None, 1.0, "", "x", "-1", "v1", "1" * 50, ["1"]])
def test_version_that_is_none_is_refused(version):
    with pytest.raises(DefinitionError, match="version is"):
        parse_version(version)


def test_name_that_is_missing_is_that_of_the_disks():
    """Files are named in local time, which the date does not tell."""
    raw = json.loads((DATA / "0.1/definition-directory.json").read_text())
    raw["disks"] = {"vda": "20191001-023401_3_test-domain_vda.qcow2"}
    assert compat_definition.upgrade(raw)["name"] == "20191001-023401_3_test-domain"


def pending_of(xml, **disk):
    return {
        "version": "0.4.0",
        "name": "n",
        "domain_xml": xml,
        "disks": {"vda": {"src": "/i", "snapshot": "/s"} | disk},
    }


def test_type_of_a_disk_without_driver_is_raw():
    xml = "<domain><devices><disk><target dev='vda'/></disk></devices></domain>"
    assert compat_pending.upgrade(pending_of(xml))["disks"]["vda"]["type"] == "raw"


def test_domain_xml_is_not_needed_where_types_are_known():
    upgraded = compat_pending.upgrade(pending_of("<broken", type="qcow2"))
    assert upgraded["disks"]["vda"]["target"] == "n_vda.qcow2"


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("<domain", "cannot be read"),
        (None, "cannot be read"),
        ("", "cannot be read"),
        ("<domain/>", "disks.vda has no type"),
        ('<!DOCTYPE d [<!ENTITY e SYSTEM "file:///etc/passwd">]><d>&e;</d>', "document type"),
        ('<!DOCTYPE d [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><d>&b;</d>', "document type"),
    ],
)
def test_hostile_domain_xml_is_refused(xml, message):
    with pytest.raises(DefinitionError, match=message):
        compat_pending.upgrade(pending_of(xml))


def test_configuration_is_not_changed_in_place():
    raw = {
        "password": "p",
        "default": {"compression_lvl": 4},
        "groups": {"a": {"compression": "gz", "target_dir": "/t"}, "b": None, "c": [1]},
    }
    before = copy.deepcopy(raw)
    upgraded, changes = compat_config.upgrade(raw)
    assert raw == before
    assert upgraded == {
        "passphrase": "p",
        "default": {"packager_opts": {"compression_lvl": 4}},
        "groups": {
            "a": {
                "target": "/t",
                "packager": "tar",
                "packager_opts": {"compression": "gz", "compression_lvl": 4},
            },
            "b": None,
            "c": [1],
        },
    }
    assert [(change.section, change.old) for change in changes] == [
        ((), ("password",)),
        (("default",), ("compression_lvl",)),
        (("groups", "a"), ("target_dir",)),
        (("groups", "a"), ("compression",)),
    ]
    assert "'p'" not in repr(changes)
    assert compat_config.upgrade(upgraded) == (upgraded, [])


def test_new_key_wins_over_its_old_name():
    raw = {"password": "old", "passphrase": "new", "groups": {}}
    assert compat_config.upgrade(raw)[0] == {"passphrase": "new", "groups": {}}


@pytest.mark.parametrize("raw", [{}, {"groups": None}, {"groups": []}, {"default": 3}])
def test_configuration_of_any_shape_is_passed_on(raw):
    assert compat_config.upgrade(raw) == (raw, [])


def test_what_the_images_of_pulled_disks_were_is_read():
    (path,) = (DATA / "original-1").iterdir()
    definition = definition_file.loads(path.read_bytes(), path)
    disk = definition.records["vda"]
    assert disk.original == Original("qcow2", Qcow2Options(3, 12, lazy_refcounts=True))
    assert disk.reading is not None
    assert disk.reading.changed == ((0, 65536), (1048576, 131072))
    written = json.loads(definition_file.dumps(definition))
    before = json.loads(path.read_bytes())
    before["images"]["vda"] |= {"new_bytes": None, "compressed_bytes": None}
    assert {
        **before,
        "note": None,
        "copied_from": None,
        "host": None,
        "accepted": None,
        "sequence": None,
        "previous": None,
        "checksum": written["checksum"],
    } == written


def test_the_new_data_of_a_backup_and_that_it_was_accepted_are_read():
    (path,) = (DATA / "jump-1").glob("*.json")
    definition = definition_file.loads(path.read_bytes(), path)
    image = definition.records["vda"].image
    assert (image.new_bytes, image.compressed_bytes) == (17179869184, 17179934720)
    assert definition.accepted == 1796031900


def test_the_host_of_a_backup_is_read():
    (path,) = (DATA / "host-1").glob("*.json")
    assert definition_file.loads(path.read_bytes(), path).host == "host1"


def test_the_numbers_and_hashes_of_definitions_are_read():
    paths = sorted((DATA / "sequence-1").iterdir())
    first, second = (definition_file.loads(path.read_bytes(), path) for path in paths)
    assert [one.sequence for one in (first, second)] == [1, 2]
    assert (first.previous, second.previous) == (None, first.hash)
    # In the words of formats.md, whatever this program makes of it.
    raw = json.loads(paths[1].read_bytes())
    lasting = {
        k: v for k, v in raw.items() if k not in ("checksum", "pinned", "verified", "accepted")
    }
    line = json.dumps(lasting, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert second.hash == f"blake3:{blake3(line.encode()).hexdigest()}"
    assert second.verified is not None


def test_what_a_host_remembers_of_a_target_is_read():
    (path,) = (DATA / "heads-1").iterdir()
    wire = heads.loads(path.read_bytes(), path)
    assert [one.sequence for one in wire.seen] == [1, 2]
    assert wire.missing is not None
    assert (wire.missing.name, wire.accepted) == ("20260307-021500_3_web", 1)


def test_a_note_of_a_target_elsewhere_is_read():
    (path,) = (DATA / "note-elsewhere-1").glob("*.note")
    note = host_notes.loads(path.read_bytes(), path)
    assert note.target == StorageLocation(
        "s3", "backups/berlin", "https://s3.example.org", "eu-1", "kvm"
    )
    assert note.pending.disks["vda"].committed


async def test_the_first_runs_in_files_of_their_own_are_read(monkeypatch):
    storage = MemoryStorage()
    storage.make_directory(history.RUNS)
    for path in (DATA / "runs-1").iterdir():
        storage.put_new(f"{history.RUNS}/{path.name}", path.read_bytes())
    monkeypatch.setitem(STORAGES, "test", lambda _at: storage)
    found = await history.read_history(StorageLocation("test", ""))
    in_one_file = await history.read_history(StorageLocation.of(DATA / "history-1"))
    assert found == in_one_file


async def test_the_first_history_is_read():
    found = await history.read_history(StorageLocation.of(DATA / "history-1"))
    assert found.damaged == 0
    backup, verify, clean = found.runs
    assert (backup.command, backup.exit_code, backup.free_bytes) == ("backup", 3, 644245094400)
    web, db = backup.domains
    assert (web.outcome, web.frozen_ms, web.phases[1]) == ("done", 41, ("freezing", 4.25))
    assert (db.outcome, db.error) == ("failed", "the image of vda is missing")
    assert verify.domains[0].data_bytes == 734003200
    assert clean.removed == 2


async def test_the_first_requests_in_a_history_are_read():
    found = await history.read_history(StorageLocation.of(DATA / "history-requests-1"))
    (run,) = found.runs
    assert run.requests == {"get": 12, "head": 30, "list": 4, "put": 31}
    assert (run.sent_bytes, run.received_bytes) == (301989888, 1048576)

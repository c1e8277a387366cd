"""The store on a real directory: what a scan finds, in whatever state a target is."""

import errno
import json
import os
import stat
from datetime import UTC, datetime

import anyio
import pytest
from msgspec.structs import replace

from fakes.failing_calls import failing
from virtbackup_async.catalog import pending_file
from virtbackup_async.catalog.store import Catalog, ListedError
from virtbackup_async.errors import StorageError
from virtbackup_async.model import names
from virtbackup_async.model.backup import (
    Definition,
    DiskRecord,
    ImageRecord,
    Packager,
    Pending,
    PendingDisk,
    StateRecord,
)
from virtbackup_async.model.guest import Guest
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.model.target_file import TargetFile

NAME = "20260301-021500_3_web"
IMAGE = ImageRecord(f"{NAME}_vda.qcow2", "/i/vda.qcow2", "qcow2", 1024, 512, 300, "blake3-256k:00")
BASE = ImageRecord(f"{NAME}_vda.1.raw", "/i/base.raw", "raw", 1024, 512, 300, "blake3-256k:01")
VARIABLES = ImageRecord(f"{NAME}_nvram.fd", "/n/web.fd", "raw", 9, 9, 9, "blake3-256k:02")
DEFINITION = Definition(
    name=NAME,
    domain_id=3,
    domain_name="web",
    domain_xml="<domain/>",
    disks={"vda": IMAGE.file},
    version="1.0.0",
    date=1772331300,
    packager=Packager("directory"),
    domain_uuid="b9ef5a09-0000-4000-8000-000000000001",
    records={"vda": DiskRecord(IMAGE, (BASE,))},
    skipped={"vdb": "a network disk"},
    quiesced=True,
    state="running",
    frozen_ms=41,
    state_files=(StateRecord("nvram", VARIABLES, "libvirt-qemu"),),
)
PENDING = Pending(
    name=NAME,
    domain_id=3,
    domain_name="web",
    domain_xml="<domain/>",
    disks={"vda": PendingDisk("/i/vda.qcow2", "qcow2", "/i/vda.vbk-1", IMAGE.file, (BASE.file,))},
    version="1.0.0",
    date=1772331300,
    packager=Packager("directory"),
    domain_uuid=DEFINITION.domain_uuid,
    state_files=(VARIABLES.file,),
)


@pytest.fixture
def catalog(tmp_path):
    return Catalog(StorageLocation.of(tmp_path))


def put_data(catalog, definition=DEFINITION):
    directory = catalog.directory(Guest(definition.domain_name)).local
    directory.mkdir(exist_ok=True)
    for file in (IMAGE.file, BASE.file, VARIABLES.file):
        (directory / file.replace(NAME, definition.name)).write_bytes(b"x")
    return directory


def put_json(directory, name, **changed):
    raw = {
        "name": name,
        "domain_id": 3,
        "domain_name": "web",
        "domain_xml": "<domain/>",
        "disks": {"vda": f"{name}_vda.qcow2"},
        "version": "0.5.6",
        "date": 1569890041,
        "packager": {"type": "directory", "opts": {}},
    } | changed
    directory.mkdir(exist_ok=True)
    (directory / f"{name}.json").write_text(json.dumps(raw))
    for file in raw["disks"].values():
        (directory / file).touch()


async def test_backup_goes_from_pending_to_complete(catalog):
    pending_path = await catalog.create_pending(PENDING)
    scan = await catalog.scan()
    assert [(found.pending, found.path) for found in scan.pending] == [(PENDING, pending_path)]
    assert not scan.complete

    put_data(catalog)
    path = await catalog.write_definition(DEFINITION)
    await catalog.remove_pending(pending_path)
    scan = await catalog.scan()
    assert [(found.definition, found.path) for found in scan.complete] == [(DEFINITION, path)]
    assert not scan.pending
    assert not scan.problems


async def test_files_are_private(catalog):
    pending_path = await catalog.create_pending(PENDING)
    put_data(catalog)
    path = await catalog.write_definition(DEFINITION)
    assert stat.S_IMODE(path.local.stat().st_mode) == 0o600
    assert stat.S_IMODE(pending_path.local.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.local.stat().st_mode) == 0o700


async def test_second_backup_of_the_same_second_is_refused(catalog):
    path = (await catalog.create_pending(PENDING)).local
    with pytest.raises(FileExistsError):
        await catalog.create_pending(replace(PENDING, date=5))
    scan = await catalog.scan()
    assert [found.pending for found in scan.pending] == [PENDING]
    assert scan.pending[0].path.local == path


async def test_finished_backup_of_the_same_second_is_not_replaced(catalog):
    put_data(catalog)
    await catalog.write_definition(DEFINITION)
    with pytest.raises(FileExistsError):
        await catalog.create_pending(PENDING)
    scan = await catalog.scan()
    assert len(scan.complete) == 1
    assert not scan.pending
    assert not scan.problems


async def test_a_pending_file_is_never_there_without_its_content(catalog, monkeypatch):
    """Whoever is killed at any moment leaves the whole file, or none."""
    path, seen = catalog.pending_path(PENDING).local, []

    def watched(name):
        real = getattr(os, name)

        def call(*args, **options):
            result = real(*args, **options)
            seen.append(path.read_bytes() if path.exists() else None)
            return result

        monkeypatch.setattr(os, name, call)

    for name in ("open", "write", "link", "rename", "unlink", "fsync", "close"):
        watched(name)
    await catalog.create_pending(PENDING)
    whole = pending_file.dumps(PENDING)
    assert {*seen} == {None, whole}
    assert list(path.parent.iterdir()) == [path]


async def test_without_hard_links_a_pending_file_is_made_in_two_steps(catalog, monkeypatch):
    def refuse(*_args, **_options):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    path = (await catalog.create_pending(PENDING)).local
    assert [found.pending for found in (await catalog.scan()).pending] == [PENDING]
    with pytest.raises(FileExistsError):
        await catalog.create_pending(PENDING)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("name", ["link", "fsync"])
async def test_a_pending_file_that_cannot_be_made_durable_is_none(catalog, monkeypatch, name):
    path = catalog.pending_path(PENDING).local
    path.parent.mkdir()

    def fail(*_args, **_options):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, name, fail)
    with pytest.raises(StorageError, match="Input/output error"):
        await catalog.create_pending(PENDING)
    assert not path.exists()


async def test_missing_target_is_not_made(tmp_path):
    catalog = Catalog(StorageLocation.of(tmp_path / "not mounted"))
    with pytest.raises(StorageError, match="mount the file system"):
        await catalog.create_pending(PENDING)
    assert not catalog.target.directory.exists()
    with pytest.raises(StorageError):
        await catalog.scan()


async def test_domain_directory_that_leaves_the_target_is_refused(catalog, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (catalog.target.directory / "web").symlink_to(elsewhere)
    put_json(elsewhere, "20191001-003401_3_web")
    with pytest.raises(StorageError, match="symlink"):
        await catalog.create_pending(PENDING)
    scan = await catalog.scan()
    assert not scan.complete
    assert "symlink" in scan.problems[0].message
    assert len(list(elsewhere.iterdir())) == 2


async def test_unfinished_backup_of_virt_backup_is_not_complete(catalog):
    """It writes the definition before the data, so the two stand side by side after a crash."""
    web = catalog.target.directory / "web"
    put_json(web, "20191001-003401_3_web")
    pending = json.loads((web / "20191001-003401_3_web.json").read_text())
    pending["disks"] = {"vda": {"src": "/i/vda.qcow2", "snapshot": "/i/vda.s", "type": "qcow2"}}
    (web / "20191001-003401_3_web.json.pending").write_text(json.dumps(pending))
    scan = await catalog.scan()
    assert not scan.complete
    assert not scan.problems
    assert [found.pending.version for found in scan.pending] == ["0.5.6"]
    assert scan.pending[0].pending.disks["vda"].target == "20191001-003401_3_web_vda.qcow2"


async def test_ours_is_complete_beside_its_pending_file(catalog):
    await catalog.create_pending(PENDING)
    put_data(catalog)
    await catalog.write_definition(DEFINITION)
    scan = await catalog.scan()
    assert len(scan.complete) == 1
    assert len(scan.pending) == 1


async def test_one_bad_file_hides_no_other(catalog):
    web = catalog.target.directory / "web"
    put_json(web, "20191001-003401_3_web")
    put_json(catalog.target.directory / "db", "20191001-003402_4_db", domain_name="db")
    bad = {
        "a.json": b"",
        "b.json": b"{",
        "c.json": b"[" * 100_000,
        "d.json": b"\xff\xfe",
        "e.json": b"[]",
        "f.json.pending": b"null",
    }
    for name, content in bad.items():
        (web / name).write_bytes(content)
    (web / "g.json").mkdir()
    (web / "h.json").symlink_to("20191001-003401_3_web.json")
    os.mkfifo(web / "i.json")
    scan = await catalog.scan()
    assert {found.definition.domain_name for found in scan.complete} == {"web", "db"}
    assert sorted(problem.path.name for problem in scan.problems) == [
        *sorted(bad),
        "g.json",
        "h.json",
        "i.json",
    ]
    for problem in scan.problems:
        assert problem.message.startswith(f"{problem.path}: ")
        assert "\n" not in problem.message


@pytest.mark.parametrize(
    ("packager", "file"),
    [
        (Packager("directory"), f"{NAME}_vda.qcow2"),
        (Packager("tar"), f"{NAME}.tar"),
        (Packager("tar", {"compression": None}), f"{NAME}.tar"),
        (Packager("tar", {"compression": "gz"}), f"{NAME}.tar.gz"),
        (Packager("zstd"), f"{NAME}_{NAME}_vda.qcow2.zstd"),
    ],
)
async def test_backup_without_its_data_is_a_problem(catalog, packager, file):
    definition = replace(DEFINITION, packager=packager, records={}, state_files=())
    catalog.directory(Guest("web")).local.mkdir()
    path = await catalog.write_definition(definition)
    scan = await catalog.scan()
    assert not scan.complete
    assert scan.problems[0].message == f"{path}: data missing: {file}"
    path.with_name(file).local.touch()
    assert len((await catalog.scan()).complete) == 1


@pytest.mark.parametrize("file", [BASE.file, VARIABLES.file])
async def test_missing_file_of_ours_is_a_problem(catalog, file):
    put_data(catalog)
    await catalog.write_definition(DEFINITION)
    (catalog.directory(Guest("web")) / file).local.unlink()
    assert file in (await catalog.scan()).problems[0].message


async def test_other_files_and_hidden_directories_are_passed_over(catalog):
    (catalog.target.directory / "notes.json").write_text("{}")
    (catalog.target.directory / ".locks").mkdir()
    (catalog.target.directory / ".locks" / "x.json").write_text("{}")
    (catalog.target.directory / "lost+found").mkdir()
    scan = await catalog.scan()
    assert scan.complete == scan.pending == scan.problems == ()


async def test_scan_is_sorted_by_date(catalog):
    web = catalog.target.directory / "web"
    for second in (5, 3, 9):
        put_json(web, f"20191001-00340{second}_3_web", date=1000 - second)
    scan = await catalog.scan()
    assert [found.definition.date for found in scan.complete] == [991, 995, 997]


@pytest.mark.parametrize("domain", ["../../x", "a/b", ".", "..", "x\0y", "\udc80", "d" * 400])
async def test_hostile_domain_stays_below_the_target(catalog, domain):
    name = names.backup_name(domain, 3, datetime.fromtimestamp(PENDING.date, UTC))
    disk = PendingDisk("/i/a", "raw", None, names.disk_file(name, "vda", "raw"))
    xml_name = domain.encode("utf-8", "replace").decode()
    state = (names.state_file(name, "tpm", domain),)
    pending = replace(
        PENDING, name=name, domain_name=xml_name, disks={"vda": disk}, state_files=state
    )
    path = await catalog.create_pending(pending)
    assert path.target == catalog.target
    assert path.local.parent.parent == catalog.target.directory
    assert [found.pending for found in (await catalog.scan()).pending] == [pending]


async def test_cancelled_creation_leaves_nothing(catalog):
    """Wherever the cancellation strikes: nothing, or the whole file."""
    path = catalog.pending_path(PENDING).local
    for checkpoints in range(8):
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(_cancel_after, scope, checkpoints)
                await catalog.create_pending(PENDING)
        assert not path.exists() or (await catalog.scan()).pending
        await catalog.remove_pending(TargetFile.of(path))
    assert list(path.parent.iterdir()) == []


async def _cancel_after(scope, checkpoints):
    for _ in range(checkpoints):
        await anyio.lowlevel.checkpoint()
    scope.cancel()


async def test_one_domain_is_scanned_alone(catalog):
    await catalog.create_pending(PENDING)
    put_json(catalog.target.directory / "db", "20191001-003402_4_db", domain_name="db")
    scan = await catalog.scan_guest(Guest("web"))
    assert [found.pending for found in scan.pending] == [PENDING]
    assert not scan.complete
    assert (await catalog.scan_guest(Guest("none"))).pending == ()


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS])
async def test_definition_that_cannot_be_synced_is_not_listed(catalog, code):
    put_data(catalog)
    with (
        failing("fsync", lambda path: path.name == "web", code) as failed,
        pytest.raises(StorageError) as raised,
    ):
        await catalog.write_definition(DEFINITION)
    assert failed
    assert not isinstance(raised.value, ListedError)
    assert (await catalog.scan()).complete == ()


async def test_definition_that_cannot_be_taken_back_is_told_as_listed(catalog):
    put_data(catalog)
    with (
        failing("fsync", lambda path: path.name == "web", errno.EIO),
        failing("unlink", lambda path: path.suffix == ".json", errno.EIO),
        pytest.raises(ListedError),
    ):
        await catalog.write_definition(DEFINITION)
    (found,) = (await catalog.scan()).complete
    assert found.definition == DEFINITION

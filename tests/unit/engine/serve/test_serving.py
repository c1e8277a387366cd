"""A backup that is served: any program reads its disks as a guest saw them."""

import os
import random
import subprocess
from pathlib import Path

import anyio
import pytest
from msgspec.structs import replace

from fakes.stored_backup import MIB, StoredBackup
from virtbackup_async.config.schema import Config
from virtbackup_async.engine.locks import hold_package
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.engine.serve.address import Place
from virtbackup_async.engine.serve.serving import ServeRequest, serve_backup
from virtbackup_async.errors import (
    ConfigError,
    CorruptError,
    DefinitionError,
    LockHeldError,
    NbdRequestError,
    NotFoundError,
)
from virtbackup_async.events import RangeUnreadable, Warned
from virtbackup_async.model.backup import Packager, Verification
from virtbackup_async.model.packager import backup_files
from virtbackup_async.model.target_file import TargetFile
from virtbackup_async.nbd import TcpAddress, UnixAddress, open_nbd, walk_status
from virtbackup_async.nbd.protocol.constants import BASE_ALLOCATION

PACKAGERS = {
    "directory": Packager("directory"),
    "tar": Packager("tar"),
    "tar-gz": Packager("tar", {"compression": "gz", "compression_lvl": 1}),
    "tar-xz": Packager("tar", {"compression": "xz", "compression_lvl": 1}),
    "tar-bz2": Packager("tar", {"compression": "bz2", "compression_lvl": 1}),
    "zstd": Packager("zstd", {"compression_lvl": 1}),
    "repository": Packager("repository", {"compression_lvl": 1}),
}
SIZE = 9 * MIB + 512


@pytest.fixture(params=PACKAGERS)
def packager(request):
    return PACKAGERS[request.param]


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image"
    rng = random.Random(8)
    with path.open("wb") as file:
        file.truncate(SIZE)
        for start, length in ((0, MIB + 77), (4 * MIB, 2 * MIB), (9 * MIB + 500, 12)):
            file.seek(start)
            file.write(rng.randbytes(length))
    return path


class Events(list):
    def of(self, kind):
        return [event for event in self if isinstance(event, kind)]


@pytest.fixture
def events():
    return Events()


@pytest.fixture
def runtime(events):
    return Runtime(Config(Path("config.yml")), events.append)


async def make(tmp_path, packager, image):
    return await StoredBackup(tmp_path / "target", packager).make(image)


def request_of(backup, *disks, **place):
    return ServeRequest(backup.read(), backup.directory, disks, Place(**place))


def address_of(served, dev="vda"):
    (uri,) = (disk.uri for disk in served.disks if disk.disk == dev)
    return UnixAddress(Path(uri.partition("?socket=")[2]))


async def read(client, offset, length):
    target = bytearray(length)
    await client.read_into(offset, memoryview(target))
    return bytes(target)


def parts(size_bytes, seed):
    rng = random.Random(seed)
    for _ in range(25):
        start = rng.randrange(size_bytes)
        yield start, rng.randint(1, min(3 * MIB, size_bytes - start))


async def test_random_reads_are_those_of_the_restored_image(tmp_path, packager, image, runtime):
    backup = await make(tmp_path, packager, image)
    content = image.read_bytes()

    async def some(address, seed):
        async with open_nbd(address, name="vda") as client:
            for start, length in parts(SIZE, seed):
                assert await read(client, start, length) == content[start : start + length]

    async with (
        serve_backup(runtime, request_of(backup)) as served,
        anyio.create_task_group() as tasks,
    ):
        for seed in range(3):
            tasks.start_soon(some, address_of(served), seed)


async def test_only_data_is_allocated(tmp_path, packager, image, runtime):
    backup = await make(tmp_path, packager, image)
    content = bytearray(image.read_bytes())
    async with (
        serve_backup(runtime, request_of(backup)) as served,
        open_nbd(address_of(served), contexts=[BASE_ALLOCATION]) as client,
    ):
        runs = [run async for run in walk_status(client, [BASE_ALLOCATION])]
    assert sum(run.length for run in runs) == SIZE
    assert sum(run.length for run in runs if run.flags == (0,)) <= 4 * MIB
    for run in runs:
        if run.flags != (0,):
            assert not any(content[run.start : run.end])


@pytest.mark.parametrize("share", [0.1, 0.4, 0.8])
async def test_damage_costs_its_range_or_is_refused(
    tmp_path, packager, image, runtime, events, share
):
    """Where digests are known, no wrong byte is served; elsewhere the rest goes on."""
    backup = await make(tmp_path, packager, image)
    content = image.read_bytes()
    package = [*(tmp_path / "target").rglob("*.pack")] or [backup.package]
    flip(package[0], share)
    good, wrong, failed = 0, 0, 0
    try:
        async with (
            serve_backup(runtime, request_of(backup)) as served,
            open_nbd(address_of(served)) as client,
        ):
            for start in range(0, SIZE, 65536):
                length = min(65536, SIZE - start)
                try:
                    found = await read(client, start, length)
                except NbdRequestError:
                    failed += length
                else:
                    same = found == content[start : start + length]
                    good, wrong = good + length * same, wrong + length * (not same)
            (disk,) = served.disks
    except CorruptError:
        return
    assert good > SIZE // 2
    if disk.checked:
        assert wrong == 0
        assert failed
    for event in events.of(RangeUnreadable):
        assert (event.domain, event.disk, event.code) == ("web", "vda", "corrupt")
    assert bool(events.of(RangeUnreadable)) == bool(failed)


async def test_the_events_tell_which_bytes_are_checked(tmp_path, packager, image, runtime):
    backup = await make(tmp_path, packager, image)
    async with serve_backup(runtime, request_of(backup)) as served:
        (disk,) = served.disks
    # A compressed archive is read once, and compared, before it is served.
    assert disk.checked is (packager.type == "repository" or "compression" in packager.opts)


@pytest.mark.parametrize(
    "options",
    [
        "", "cluster_size=512", "cluster_size=2M", "compat=0.10", "extended_l2=on",
        "compression_type=zstd",
    ],
)  # fmt: skip
@pytest.mark.parametrize("compressed", [False, True])
async def test_a_qcow2_image_is_served_as_a_guest_sees_it(
    tmp_path, image, runtime, options, compressed
):
    top = tmp_path / "top.qcow2"
    words = [*(["-o", options] if options else []), *(["-c"] if compressed else [])]
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", *words, image, top)
    run("qemu-io", "-f", "qcow2", "-c", "write -z 4M 64k", "-c", "discard 5M 1M",
        "-c", "write -P 3 300k 1k", top)  # fmt: skip
    backup = await make_qcow2(tmp_path, PACKAGERS["repository"], top)
    expected = tmp_path / "expected"
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", top, expected)
    content = expected.read_bytes()
    async with (
        serve_backup(runtime, request_of(backup)) as served,
        open_nbd(address_of(served), contexts=[BASE_ALLOCATION]) as client,
    ):
        assert served.disks[0].size_bytes == len(content)
        assert served.disks[0].format == "qcow2"
        for start, length in parts(len(content), 4):
            assert await read(client, start, length) == content[start : start + length]
        assert await read(client, 0, len(content)) == content
        runs = [run async for run in walk_status(client, [BASE_ALLOCATION])]
    assert sum(run.length for run in runs) == len(content)
    for one in runs:
        assert one.flags == (0,) or not any(content[one.start : one.end])
    assert sum(one.length for one in runs if one.flags != (0,)) >= 2 * MIB


async def test_a_qcow2_image_that_needs_another_file_is_refused(tmp_path, image, runtime):
    top = tmp_path / "top.qcow2"
    run("qemu-img", "create", "-f", "qcow2", "-F", "raw", "-b", image, top)
    backup = await make_qcow2(tmp_path, PACKAGERS["repository"], top)
    with pytest.raises(DefinitionError, match="which is not in the backup"):
        async with serve_backup(runtime, request_of(backup)):
            pytest.fail("its data is elsewhere")


async def test_a_damaged_qcow2_table_costs_its_range(tmp_path, image, runtime, events):
    top = tmp_path / "top.qcow2"
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", image, top)
    rng = random.Random(1)
    with top.open("r+b") as file:
        for _ in range(40):
            file.seek(rng.randrange(0x30000, 0x60000) // 8 * 8)
            file.write(rng.randbytes(8))
    backup = await make_qcow2(tmp_path, PACKAGERS["directory"], top)
    async with (
        serve_backup(runtime, request_of(backup)) as served,
        open_nbd(address_of(served)) as client,
    ):
        for start in range(0, SIZE - SIZE % 65536, 65536):
            try:
                assert len(await read(client, start, 65536)) == 65536
            except NbdRequestError:
                continue


async def test_a_backup_that_is_served_is_not_removed(tmp_path, packager, image, runtime):
    backup = await make(tmp_path, packager, image)
    files = backup_files(backup.read(), TargetFile.of(backup.directory, 1))
    async with serve_backup(runtime, request_of(backup)):
        with pytest.raises(LockHeldError):
            async with hold_package(files, exclusive=True):
                pytest.fail("a client reads it")
    async with hold_package(files, exclusive=True):
        pass


async def test_an_unknown_disk_is_not_found(tmp_path, image, runtime):
    backup = await make(tmp_path, PACKAGERS["directory"], image)
    with pytest.raises(NotFoundError, match="no disk vdz"):
        async with serve_backup(runtime, request_of(backup, "vdz")):
            pytest.fail("there is none")


async def test_a_known_damage_is_told(tmp_path, image, runtime, events):
    backup = await make(tmp_path, PACKAGERS["directory"], image)
    request = request_of(backup)
    damaged = replace(request.definition, verified=Verification(1, ok=False, digests=True))
    async with serve_backup(runtime, replace(request, definition=damaged)):
        pass
    (warning,) = events.of(Warned)
    assert warning.message == f"{damaged.name} is known to be damaged"


class TestPlace:
    @pytest.fixture
    async def backup(self, tmp_path, image):
        return await make(tmp_path, PACKAGERS["directory"], image)

    async def test_the_socket_is_where_the_admin_wants_it(self, backup, runtime, tmp_path_factory):
        path = tmp_path_factory.mktemp("s") / "web.sock"
        async with serve_backup(runtime, request_of(backup, socket=path)) as served:
            assert served.disks[0].uri == f"nbd+unix:///vda?socket={path}"
            assert path.stat().st_mode & 0o777 == 0o600
        assert not path.exists()

    async def test_others_cannot_exchange_the_socket(self, backup, runtime, tmp_path_factory):
        directory = tmp_path_factory.mktemp("s")
        directory.chmod(0o777)
        with pytest.raises(ConfigError, match="no place for a socket: others can write to"):
            async with serve_backup(runtime, request_of(backup, socket=directory / "web.sock")):
                pytest.fail("others could exchange it")

    async def test_no_place_leaves_anything(self, backup, runtime, monkeypatch, tmp_path_factory):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("t")))
        async with serve_backup(runtime, request_of(backup)) as served:
            directory = address_of(served).path.parent
            assert directory.stat().st_mode & 0o777 == 0o700
        assert not directory.exists()

    async def test_tcp_needs_certificates(self, backup, runtime):
        with pytest.raises(ConfigError, match="without TLS"):
            async with serve_backup(runtime, request_of(backup, tcp=TcpAddress("127.0.0.1", 0))):
                pytest.fail("anybody could read it")


async def make_qcow2(tmp_path, packager, top):
    backup = await make(tmp_path, packager, top)
    backup.rewrite(backup.path.read_text().replace('"format": "raw"', '"format": "qcow2"'))
    return backup


def flip(path, share):
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(int(size * share))
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0x10]))


def run(*words):
    subprocess.run([str(word) for word in words], check=True, capture_output=True)

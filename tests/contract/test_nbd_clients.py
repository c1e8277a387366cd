"""The NBD server with other programs' clients: QEMU's, libnbd's, and nbdkit's as a relay."""

import json
import random

import anyio
import pytest

from fakes.memory_device import MemoryDevice, WritableMemoryDevice
from fakes.nbd_servers import SERVER_NAME, certificates
from fakes.served import serving
from virtbackup_async.nbd.server.listening import listen_tcp, server_tls
from virtbackup_async.nbd.server.server import DeviceExport, open_server

MIB = 1 << 20
NOISE = random.Random(6).randbytes(5 * MIB)
CONTENT = NOISE[: 3 * MIB] + bytes(9 * MIB) + NOISE[3 * MIB :] + bytes(MIB // 2)


@pytest.fixture
def short(tmp_path_factory):
    return tmp_path_factory.mktemp("s")


async def output(*words, check=True):
    with anyio.fail_after(120):
        done = await anyio.run_process([str(word) for word in words], check=False)
    assert done.returncode == 0 or not check, done.stderr.decode()
    return done.stdout.decode() + done.stderr.decode()


def uri(served, name="vda"):
    return f"nbd+unix:///{name}?socket={served.path}"


async def test_nbdinfo_describes_the_export(short):
    async with serving(short, vda=MemoryDevice(CONTENT)) as served:
        (export,) = json.loads(await output("nbdinfo", "--json", uri(served)))["exports"]
        assert export["export-size"] == len(CONTENT)
        assert export["is_read_only"] is True
        assert export["can_multi_conn"] is True
        assert "base:allocation" in export["contexts"]
        assert export["block_size_maximum"] == 32 * MIB
        runs = json.loads(await output("nbdinfo", "--json", "--map", uri(served)))
        assert [(run["offset"], run["length"], run["type"]) for run in runs] == [
            (0, 3 * MIB, 0), (3 * MIB, 9 * MIB, 3), (12 * MIB, 2 * MIB, 0), (14 * MIB, MIB // 2, 3),
        ]  # fmt: skip


async def test_nbdinfo_lists_all_exports(short):
    devices = {"vda": MemoryDevice(CONTENT), "vdb": MemoryDevice(b"x" * 512)}
    async with serving(short, **devices) as served:
        listed = await output("nbdinfo", "--list", "--json", uri(served, ""))
        sizes = {one["export-name"]: one["export-size"] for one in json.loads(listed)["exports"]}
    assert sizes == {"vda": len(CONTENT), "vdb": 512}


@pytest.mark.parametrize("options", [[], ["--synchronous"], ["--request-size=33554432"]])
async def test_nbdcopy_copies_every_byte(short, options):
    async with serving(short, vda=MemoryDevice(CONTENT)) as served:
        await output("nbdcopy", *options, uri(served), short / "copy")
    assert (short / "copy").read_bytes() == CONTENT
    assert (short / "copy").stat().st_blocks * 512 < 6 * MIB


async def test_qemu_img_converts_every_byte(short):
    device = MemoryDevice(CONTENT)
    async with serving(short, vda=device) as served:
        info = json.loads(await output("qemu-img", "info", "--output=json", uri(served)))
        assert info["virtual-size"] == len(CONTENT)
        runs = json.loads(await output("qemu-img", "map", "--output=json", uri(served)))
        assert [(run["start"], run["data"], run["zero"]) for run in runs] == [
            (0, True, False), (3 * MIB, False, True),
            (12 * MIB, True, False), (14 * MIB, False, True),
        ]  # fmt: skip
        await output("qemu-img", "convert", "-O", "raw", uri(served), short / "copy")
    assert (short / "copy").read_bytes() == CONTENT


async def test_qemu_io_writes_flushes_and_discards(short):
    device = WritableMemoryDevice(CONTENT)
    async with serving(short, vda=device) as served:
        commands = [
            "write -P 7 1M 2M",
            "write -z 0 64k",
            "discard 12M 1M",
            "flush",
            "read -P 7 1M 2M",
        ]
        words = [word for command in commands for word in ("-c", command)]
        said = await output("qemu-io", "-f", "raw", *words, uri(served))
        assert "read 2097152/2097152 bytes" in said
        assert "failed" not in said
    assert device.flushed == device.content
    assert device.content[MIB : 3 * MIB] == b"\7" * 2 * MIB
    assert device.content[:65536] == bytes(65536)


async def test_qemu_io_gets_an_error_for_the_damaged_range_only(short):
    device = MemoryDevice(CONTENT, damaged=[(MIB, MIB + 1)])
    async with serving(short, vda=device) as served:
        words = ["-c", "read 1M 4k", "-c", "read 2M 4k"]
        said = await output("qemu-io", "-r", "-f", "raw", *words, uri(served), check=False)
        assert "read failed: Input/output error" in said
        assert "read 4096/4096 bytes at offset 2097152" in said
    assert len(served.failures) >= 1


async def test_a_copy_on_write_image_above_is_used_by_qemu(short):
    device = MemoryDevice(CONTENT)
    async with serving(short, vda=device) as served:
        top = short / "top.qcow2"
        await output("qemu-img", "create", "-f", "qcow2", "-F", "raw", "-b", uri(served), top)
        await output("qemu-io", "-c", "write -P 9 100k 200k", top)
        await output("qemu-img", "rebase", "-b", "", top)
        await output("qemu-img", "convert", "-O", "raw", top, short / "copy")
    expected = bytearray(CONTENT)
    expected[100 << 10 : 300 << 10] = b"\x09" * (200 << 10)
    assert (short / "copy").read_bytes() == expected


async def test_nbdkit_relays_every_byte(short):
    async with serving(short, vda=MemoryDevice(CONTENT)) as served:
        await output("nbdcopy", "--", "[", "nbdkit", "nbd", uri(served), "]", short / "copy")
    assert (short / "copy").read_bytes() == CONTENT


async def test_nbdinfo_and_qemu_img_connect_with_tls(tmp_path):
    keys = certificates(tmp_path / "keys")
    with listen_tcp("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        exports = {"vda": DeviceExport(MemoryDevice(CONTENT))}
        async with open_server(listener, exports, tls=server_tls(keys), on_failure=lambda *_: None):
            await output(
                "qemu-img", "convert", "-O", "raw", "--object",
                f"tls-creds-x509,id=t,dir={keys},endpoint=client", "--image-opts",
                f"driver=nbd,host=127.0.0.1,port={port},export=vda,tls-creds=t,"
                f"tls-hostname={SERVER_NAME}", tmp_path / "copy",
            )  # fmt: skip
            said = await output("nbdinfo", f"nbd://127.0.0.1:{port}/vda", check=False)
            assert "TLS" in said
    assert (tmp_path / "copy").read_bytes() == CONTENT

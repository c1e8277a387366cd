"""The NBD client against real servers: qemu-nbd and nbdkit, plain and encrypted."""

import errno
import os
import random

import anyio
import pytest

from fakes.nbd_servers import SERVER_NAME, certificates, nbdkit, qemu_nbd
from lab.process import run
from virtbackup_async.errors import (
    NbdConnectionError,
    NbdRefusedError,
    NbdRequestError,
)
from virtbackup_async.nbd import TcpAddress, UnixAddress, open_nbd, walk_status
from virtbackup_async.nbd.client.tls import tls_from
from virtbackup_async.nbd.protocol.constants import (
    BASE_ALLOCATION,
    STATE_DIRTY,
    STATE_ZERO,
    ExportFlag,
)

MIB = 1 << 20
BITMAP = "qemu:dirty-bitmap:since"


@pytest.fixture
def image(tmp_path):
    """8 MiB: noise, a hole, noise."""
    path = tmp_path / "disk.raw"
    noise = random.Random(1).randbytes(3 * MIB)
    with path.open("wb") as file:
        file.write(noise)
        file.seek(6 * MIB)
        file.write(noise[: 2 * MIB])
    return path


@pytest.fixture
def short(tmp_path_factory):
    """A directory whose sockets' paths are short enough."""
    return tmp_path_factory.mktemp("s")


async def read_all(client, *, piece=MIB, at_once=4):
    """All of an export, read by several tasks, each into a buffer that it uses again."""
    whole = bytearray(client.export.size_bytes)
    offsets = iter(range(0, len(whole), piece))

    async def reader():
        buffer = memoryview(bytearray(piece))
        for offset in offsets:
            part = buffer[: min(piece, len(whole) - offset)]
            await client.read_into(offset, part)
            whole[offset : offset + len(part)] = part

    async with anyio.create_task_group() as tasks:
        for number in range(at_once):
            tasks.start_soon(reader, name=f"reader {number}")
    return bytes(whole)


async def open_once(address, **options):
    async with open_nbd(address, **options):
        pass


async def walk(client, *contexts):
    return [run async for run in walk_status(client, contexts)]


@pytest.mark.parametrize("connections", [1, 4])
@pytest.mark.parametrize("tcp", [False, True])
@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
async def test_qemu_nbd_serves_all_bytes(image, short, image_format, tcp, connections):
    served = image
    if image_format == "qcow2":
        served = image.with_suffix(".qcow2")
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", image, served)
    options = ("--read-only", "--export-name", "vda")
    with qemu_nbd(short, served, *options, image_format=image_format, tcp=tcp) as address:
        async with open_nbd(
            address, name="vda", contexts=[BASE_ALLOCATION], connections=connections
        ) as client:
            assert await read_all(client) == image.read_bytes()
            runs = await walk(client, BASE_ALLOCATION)
    zero = [(run.start, run.length) for run in runs if run.flags[0] & STATE_ZERO]
    assert zero == [(3 * MIB, 3 * MIB)]
    assert sum(run.length for run in runs) == 8 * MIB


async def test_dirty_bitmap_and_allocation_are_walked_together(tmp_path, short):
    path = tmp_path / "disk.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", path, "4M")
    run("qemu-io", "-f", "qcow2", "-c", "write 0 2M", path)
    run("qemu-img", "bitmap", "--add", "-f", "qcow2", path, "since")
    run("qemu-io", "-f", "qcow2", "-c", "write -z 1M 512k", "-c", "write 3M 64k", path)
    options = ("--read-only", "--bitmap", "since")
    contexts = [BASE_ALLOCATION, BITMAP]
    with qemu_nbd(short, path, *options, image_format="qcow2") as address:
        async with open_nbd(address, contexts=contexts) as client:
            runs = await walk(client, *contexts)
    found = [
        (run.start >> 10, run.length >> 10, bool(run.flags[0] & STATE_ZERO),
         bool(run.flags[1] & STATE_DIRTY))
        for run in runs
    ]  # fmt: skip
    assert found == [
        (0, 1024, False, False),
        (1024, 512, True, True),  # dirty, and zero: neither may hide the other
        (1536, 512, False, False),
        (2048, 1024, True, False),
        (3072, 64, False, True),
        (3136, 960, True, False),
    ]


async def test_written_bytes_are_there_after_a_flush(image, short):
    expected = bytearray(image.read_bytes())
    noise = random.Random(2).randbytes(5 * MIB)
    expected[100_000 : 100_000 + len(noise)] = noise
    expected[4096:12288] = bytes(8192)
    with qemu_nbd(short, image, "--discard=unmap") as address:
        async with open_nbd(address, connections=2) as client:
            await client.write(100_000, noise)
            await client.write_zeroes(4096, 8192)
            await client.write_zeroes(8192, 4096, keep_allocated=True)
            await client.trim(7 * MIB, MIB)
            await client.flush()
            read = await read_all(client)
    assert read[: 7 * MIB] == expected[: 7 * MIB]
    assert image.read_bytes() == read


async def test_what_an_export_does_not_take_is_refused_before_it_is_sent(image, short):
    with qemu_nbd(short, image, "--read-only") as address:
        async with open_nbd(address) as client:
            for deed in (client.write(0, b"x"), client.trim(0, 512), client.write_zeroes(0, 512)):
                with pytest.raises(NbdRefusedError, match="read-only"):
                    await deed
            with pytest.raises(NbdRefusedError, match="block status"):
                await client.block_status(0, 512)
            with pytest.raises(NbdRefusedError, match=BITMAP):
                await walk(client, BITMAP)


async def test_an_error_of_the_server_leaves_the_connection_good(short):
    with nbdkit(
        short, "--filter=error", "data", "0x1 * 65536 @0x100000 0x2 * 65536",
        "error-pread=EIO", "error-pread-rate=100%", f"error-file={short / 'broken'}",
    ) as address:  # fmt: skip
        async with open_nbd(address) as client:
            buffer = memoryview(bytearray(65536))
            (short / "broken").touch()
            with pytest.raises(NbdRequestError, match=r"read of 64\.0 KiB at byte 0") as caught:
                await client.read_into(0, buffer)
            assert caught.value.errno == errno.EIO
            (short / "broken").unlink()
            await client.read_into(0x100000, buffer)
            assert bytes(buffer) == b"\2" * 65536


async def test_out_of_range_is_the_servers_error(image, short):
    with qemu_nbd(short, image) as address:
        async with open_nbd(address) as client:
            with pytest.raises(NbdRequestError):
                await client.read_into(8 * MIB, memoryview(bytearray(512)))


async def test_a_slow_server_answers_many_requests_at_once(short):
    words = ["--filter=delay", "memory", "8M", "rdelay=200ms"]
    with nbdkit(short, *words) as address:
        async with open_nbd(address) as client:
            with anyio.fail_after(10):  # one after the other they would take 25 s
                assert await read_all(client, piece=65536, at_once=64) == bytes(8 * MIB)


async def test_a_cancelled_read_stops_at_once_and_harms_no_other(short):
    words = ["--filter=delay", "memory", "1M", "rdelay=1"]
    with nbdkit(short, *words) as address:
        async with open_nbd(address) as client:
            buffer = bytearray(b"\xee" * 65536)
            with anyio.move_on_after(0.05) as scope:
                await client.read_into(0, memoryview(buffer))
            assert scope.cancelled_caught
            other = memoryview(bytearray(b"\xee" * 65536))
            await client.read_into(65536, other)
            assert bytes(other) == bytes(65536)
            assert bytes(buffer) == b"\xee" * 65536


async def test_a_server_with_large_blocks_and_small_requests_is_kept_to(short):
    words = ["--filter=blocksize-policy", "pattern", "1M", "blocksize-minimum=4096",
             "blocksize-maximum=65536", "blocksize-error-policy=error"]  # fmt: skip
    with nbdkit(short, *words) as address:
        async with open_nbd(address) as client:
            assert client.export.block_sizes.minimum == 4096
            whole = await read_all(client, piece=MIB)
    assert whole == b"".join(offset.to_bytes(8, "big") for offset in range(0, MIB, 8))


async def test_only_one_connection_where_more_would_see_different_things(short):
    words = ["--filter=multi-conn", "memory", "1M", "multi-conn-mode=disable"]
    with nbdkit(short, *words) as address:
        async with open_nbd(address, connections=4) as client:
            assert ExportFlag.CAN_MULTI_CONN not in client.export.flags
            assert len(client._connections) == 1


async def test_extents_of_nbdkit_are_walked(short):
    with nbdkit(short, "data", "@0x200000 1 @0x500000 2", "size=8M") as address:
        async with open_nbd(address, contexts=[BASE_ALLOCATION]) as client:
            runs = await walk(client, BASE_ALLOCATION)
    data = [(run.start, run.length) for run in runs if not run.flags[0] & STATE_ZERO]
    assert [start for start, _ in data] == [0x200000, 0x500000]
    assert sum(run.length for run in runs) == 8 * MIB


async def test_a_server_without_structured_replies_is_read(short):
    with nbdkit(short, "--no-sr", "pattern", "1M") as address:
        async with open_nbd(address, contexts=[BASE_ALLOCATION]) as client:
            assert client.export.contexts == {}
            assert (await read_all(client))[8:16] == (8).to_bytes(8, "big")


async def test_a_server_that_dies_ends_all_waiting(short):
    with nbdkit(short, "--filter=delay", "memory", "1M", "rdelay=60") as address:
        async with open_nbd(address) as client:

            async def read(offset):
                with pytest.raises(NbdConnectionError):
                    await client.read_into(offset, memoryview(bytearray(512)))

            async with anyio.create_task_group() as tasks:
                for number in range(100):  # more than may be on their way
                    tasks.start_soon(read, number * 512)
                await anyio.wait_all_tasks_blocked()
                os.kill(int((short / "nbdkit.pid").read_text()), 9)
            await read(0)


async def test_nobody_listens(tmp_path):
    with pytest.raises(NbdConnectionError, match="cannot be reached: No such file"):
        await open_once(UnixAddress(tmp_path / "none.sock"))
    with pytest.raises(NbdConnectionError, match="cannot be reached"):
        await open_once(UnixAddress(tmp_path / ("x" * 200)))
    with pytest.raises(NbdConnectionError, match="cannot be reached"):
        await open_once(TcpAddress("127.0.0.1", 1))


async def test_an_export_that_is_not_there_is_refused(image, short):
    serving = qemu_nbd(short, image, "--export-name", "vda")
    with serving as address, pytest.raises(NbdRefusedError, match="vdb"):
        await open_once(address, name="vdb")


@pytest.fixture
def keys(tmp_path):
    return certificates(tmp_path / "pki")


def tls_options(keys):
    return (
        "--object", f"tls-creds-x509,id=tls0,endpoint=server,verify-peer=yes,dir={keys}",
        "--tls-creds", "tls0",
    )  # fmt: skip


@pytest.mark.parametrize("tcp", [False, True])
async def test_qemu_nbd_is_read_encrypted(image, short, keys, tcp):
    tls = tls_from(keys, SERVER_NAME)
    with qemu_nbd(short, image, *tls_options(keys), tcp=tcp) as address:
        async with open_nbd(address, tls=tls, connections=2) as client:
            assert await read_all(client) == image.read_bytes()


async def test_nbdkit_is_read_encrypted(short, keys):
    words = ["--tls=require", f"--tls-certificates={keys}", "--tls-verify-peer", "pattern", "8M"]
    with nbdkit(short, *words) as address:
        async with open_nbd(address, tls=tls_from(keys, SERVER_NAME)) as client:
            assert (await read_all(client))[-8:] == (8 * MIB - 8).to_bytes(8, "big")


async def test_encryption_is_demanded_never_merely_allowed(image, short, keys):
    with qemu_nbd(short, image) as address, pytest.raises(NbdRefusedError, match="no TLS"):
        async with open_nbd(address, tls=tls_from(keys, SERVER_NAME)):
            pass


async def test_a_server_that_demands_encryption_says_so(image, short, keys):
    serving = qemu_nbd(short, image, *tls_options(keys))
    with serving as address, pytest.raises(NbdRefusedError, match="TLS"):
        await open_once(address)


async def test_a_certificate_of_somebody_else_is_refused(image, short, keys, tmp_path):
    stranger = tls_from(certificates(tmp_path / "stranger"), SERVER_NAME)
    misnamed = tls_from(keys, "other.test")
    with qemu_nbd(short, image, *tls_options(keys)) as address:
        for tls in (stranger, misnamed):
            with pytest.raises(NbdRefusedError, match="certificate"):
                await open_once(address, tls=tls)


async def test_a_client_without_a_certificate_is_turned_away(image, short, keys):
    (keys / "client-cert.pem").unlink()
    serving, tls = qemu_nbd(short, image, *tls_options(keys)), tls_from(keys, SERVER_NAME)
    with serving as address, pytest.raises(NbdConnectionError):
        async with open_nbd(address, tls=tls) as client:
            await client.read_into(0, memoryview(bytearray(512)))


def test_certificates_that_are_not_there(tmp_path):
    with pytest.raises(NbdRefusedError, match="cannot be used"):
        tls_from(tmp_path, SERVER_NAME)
    (tmp_path / "ca-cert.pem").write_text("nonsense")
    with pytest.raises(NbdRefusedError, match="cannot be used"):
        tls_from(tmp_path, SERVER_NAME)

"""The NBD server with this program's client: it reads and writes what the devices have."""

import errno
import os
import random
import socket
import stat

import anyio
import pytest

from fakes.memory_device import MemoryDevice, WritableMemoryDevice
from fakes.nbd_servers import SERVER_NAME, certificates
from fakes.served import flags, go, option, raw_client, request, serving, until_hung_up
from virtbackup_async.errors import (
    ConfigError,
    LockHeldError,
    NbdConnectionError,
    NbdRefusedError,
    NbdRequestError,
)
from virtbackup_async.nbd import TcpAddress, open_nbd, walk_status
from virtbackup_async.nbd.client.tls import tls_from
from virtbackup_async.nbd.protocol.constants import Command, ExportFlag, Option
from virtbackup_async.nbd.server.listening import listen_tcp, listen_unix, server_tls
from virtbackup_async.nbd.server.server import DeviceExport, open_server

MIB = 1 << 20
ALLOCATION = "base:allocation"


@pytest.fixture
def content():
    noise = random.Random(1).randbytes(3 * MIB)
    return noise + bytes(2 * MIB) + noise[:4096] + bytes(MIB - 4096) + noise[:777]


@pytest.fixture
def short(tmp_path_factory):
    return tmp_path_factory.mktemp("s")


async def read(client, offset, length):
    target = bytearray(length)
    await client.read_into(offset, memoryview(target))
    return bytes(target)


@pytest.mark.parametrize("connections", [1, 4])
async def test_every_byte_is_served(short, content, connections):
    async with (
        serving(short, vda=MemoryDevice(content)) as served,
        open_nbd(served.address, name="vda", connections=connections) as client,
    ):
        assert client.export.size_bytes == len(content)
        assert client.export.flags & ExportFlag.READ_ONLY
        assert await read(client, 0, len(content)) == content
        rng = random.Random(2)
        for _ in range(50):
            start = rng.randrange(len(content))
            length = rng.randint(1, len(content) - start)
            assert await read(client, start, length) == content[start : start + length]


async def test_many_tasks_read_at_once(short, content):
    async def some(client, seed):
        rng = random.Random(seed)
        for _ in range(20):
            start = rng.randrange(len(content) - 70000)
            assert await read(client, start, 70000) == content[start : start + 70000]

    async with (
        serving(short, vda=MemoryDevice(content)) as served,
        open_nbd(served.address, connections=3) as client,
        anyio.create_task_group() as tasks,
    ):
        for seed in range(12):
            tasks.start_soon(some, client, seed)


async def test_zeros_are_neither_read_nor_sent(short, content):
    device = MemoryDevice(content)
    async with serving(short, vda=device) as served, open_nbd(served.address) as client:
        assert await read(client, 3 * MIB, 2 * MIB) == bytes(2 * MIB)
    assert device.reads == []


async def test_the_block_status_shows_holes(short, content):
    async with (
        serving(short, vda=MemoryDevice(content)) as served,
        open_nbd(served.address, contexts=[ALLOCATION]) as client,
    ):
        runs = [run async for run in walk_status(client, [ALLOCATION])]
        assert [(run.start, run.length, run.flags) for run in runs] == [
            (0, 3 * MIB, (0,)),
            (3 * MIB, 2 * MIB, (3,)),
            (5 * MIB, 4096, (0,)),
            (5 * MIB + 4096, MIB - 4096, (3,)),
            (6 * MIB, 777, (0,)),
        ]


async def test_a_status_of_very_many_runs_comes_in_parts(short):
    content = b"".join(bytes([page % 2]) * 4096 for page in range(6001))
    async with (
        serving(short, vda=MemoryDevice(content)) as served,
        open_nbd(served.address, contexts=[ALLOCATION]) as client,
    ):
        first = await client.block_status(0, len(content))
        assert len(first[ALLOCATION]) < 6001
        runs = [run async for run in walk_status(client, [ALLOCATION])]
        assert len(runs) == 6001


async def test_several_exports_are_served_side_by_side(short):
    async with serving(short, vda=MemoryDevice(b"a" * 512), vdb=MemoryDevice(b"b" * 9)) as served:
        async with open_nbd(served.address, name="vdb") as client:
            assert await read(client, 0, 9) == b"b" * 9
        with pytest.raises(NbdRefusedError, match="no such export"):
            async with open_nbd(served.address):
                pytest.fail("neither is the default one")


async def test_damage_costs_its_range_and_is_reported(short, content):
    device = MemoryDevice(content, damaged=[(MIB, MIB + 1)])
    async with serving(short, vda=device) as served, open_nbd(served.address) as client:
        with pytest.raises(NbdRequestError, match="this range is damaged") as failed:
            await read(client, 0, 2 * MIB)
        assert failed.value.errno == errno.EIO
        assert await read(client, 2 * MIB, MIB) == content[2 * MIB : 3 * MIB]
        assert await read(client, 0, MIB) == content[:MIB]
    ((export, offset, length, error),) = served.failures
    assert (export, offset, length) == ("vda", MIB, MIB)
    assert error.message == "this range is damaged"


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "full"), ZeroDivisionError()])
async def test_a_device_that_fails_costs_one_request(short, failure):
    class Failing(WritableMemoryDevice):
        async def write(self, offset, data):
            if offset:
                raise failure
            await super().write(offset, data)

    device = Failing(bytes(3 * MIB))
    async with serving(short, vda=device) as served, open_nbd(served.address) as client:
        with pytest.raises(NbdRequestError) as failed:
            await client.write(MIB, b"x" * 2 * MIB)
        assert failed.value.errno == getattr(failure, "errno", errno.EIO)
        await client.write(0, b"y")
        assert await read(client, 0, 2) == b"y\0"
    assert served.failures == [("vda", MIB, MIB, failure)]


async def test_a_writable_device_is_changed_and_flushed(short, content):
    device = WritableMemoryDevice(content)
    expected = bytearray(content)
    async with (
        serving(short, vda=device) as served,
        open_nbd(served.address, contexts=[ALLOCATION], connections=2) as client,
    ):
        await client.write(3 * MIB - 5, b"w" * (MIB + 9))
        expected[3 * MIB - 5 : 4 * MIB + 4] = b"w" * (MIB + 9)
        await client.write_zeroes(100, MIB)
        expected[100 : MIB + 100] = bytes(MIB)
        await client.trim(2 * MIB, 10)
        expected[2 * MIB : 2 * MIB + 10] = bytes(10)
        assert await read(client, 0, len(content)) == expected
        assert device.flushed == content
        await client.flush()
        assert device.flushed == expected


async def test_a_write_can_ask_to_be_durable(short):
    device = WritableMemoryDevice(bytes(512))
    async with serving(short, vda=device) as served, raw_client(served) as stream:
        await stream.send(flags() + option(Option.STRUCTURED_REPLY) + go())
        await stream.send(request(Command.WRITE, 0, 3, flags=1) + b"abc")
        await stream.send(request(Command.DISC))
        await until_hung_up(stream)
    assert device.flushed[:3] == b"abc"


async def test_a_read_only_device_takes_no_write(short):
    device = MemoryDevice(b"x" * 512)
    async with serving(short, vda=device) as served, open_nbd(served.address) as client:
        with pytest.raises(NbdRefusedError, match="read-only"):
            await client.write(0, b"y")
        assert await read(client, 0, 512) == b"x" * 512


async def test_the_end_of_the_server_ends_its_clients(short):
    device = MemoryDevice(b"x" * 512)
    async with serving(short, vda=device) as served:
        client_of = open_nbd(served.address)
        client = await client_of.__aenter__()
    with pytest.raises(NbdConnectionError):
        await read(client, 0, 1)
    await client_of.__aexit__(None, None, None)
    assert not served.path.exists()


def test_the_socket_is_for_its_user_alone(short):
    before = os.umask(0)
    try:
        with listen_unix(short / "nbd.sock"):
            assert stat.S_IMODE((short / "nbd.sock").stat().st_mode) == 0o600
    finally:
        os.umask(before)
    assert not (short / "nbd.sock").exists()


def test_the_socket_of_a_dead_process_is_replaced(short):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(short / "nbd.sock"))
    with listen_unix(short / "nbd.sock"), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(short / "nbd.sock"))


def test_the_socket_of_a_living_process_is_left_alone(short):
    with (
        listen_unix(short / "nbd.sock"),
        pytest.raises(LockHeldError, match="another process listens"),
        listen_unix(short / "nbd.sock"),
    ):
        pytest.fail("it is taken")


def test_a_file_in_the_place_of_the_socket_is_left_alone(short):
    (short / "nbd.sock").write_text("important")
    with pytest.raises(NbdConnectionError, match="in use"), listen_unix(short / "nbd.sock"):
        pytest.fail("it is a file")
    assert (short / "nbd.sock").read_text() == "important"


def test_a_path_that_is_too_long_is_refused(short):
    with (
        pytest.raises(ConfigError, match="longer than 107 bytes"),
        listen_unix(short / ("x" * 108)),
    ):
        pytest.fail("no kernel takes it")


class TestTls:
    @pytest.fixture
    def keys(self, tmp_path):
        return certificates(tmp_path / "keys")

    async def served_bytes(self, keys, device, *, client_keys):
        with listen_tcp("127.0.0.1", 0) as listener:
            address = TcpAddress(*listener.getsockname())
            tls = client_keys and tls_from(client_keys, SERVER_NAME)
            async with (
                open_server(
                    listener, {"vda": DeviceExport(device)}, tls=server_tls(keys),
                    on_failure=pytest.fail,
                ),
                open_nbd(address, tls=tls) as client,
            ):  # fmt: skip
                return await read(client, 0, device.size_bytes)

    async def test_an_encrypted_connection_serves_every_byte(self, keys, content):
        assert await self.served_bytes(keys, MemoryDevice(content), client_keys=keys) == content

    async def test_a_client_without_tls_is_refused(self, keys):
        with pytest.raises(NbdRefusedError, match="requires TLS"):
            await self.served_bytes(keys, MemoryDevice(b"secret"), client_keys=None)

    async def test_a_client_without_a_certificate_is_refused(self, keys, tmp_path):
        (tmp_path / "bare").mkdir()
        (tmp_path / "bare" / "ca-cert.pem").write_bytes((keys / "ca-cert.pem").read_bytes())
        with pytest.raises(NbdConnectionError):
            await self.served_bytes(keys, MemoryDevice(b"s"), client_keys=tmp_path / "bare")

    async def test_a_client_of_another_authority_is_refused(self, keys, tmp_path):
        foreign = certificates(tmp_path / "foreign")
        (foreign / "ca-cert.pem").write_bytes((keys / "ca-cert.pem").read_bytes())
        with pytest.raises(NbdConnectionError):
            await self.served_bytes(keys, MemoryDevice(b"s"), client_keys=foreign)

    def test_missing_certificates_are_named(self, tmp_path):
        with pytest.raises(ConfigError, match=f"certificates in {tmp_path} cannot be used"):
            server_tls(tmp_path)

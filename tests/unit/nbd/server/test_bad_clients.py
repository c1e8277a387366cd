"""Clients that misbehave, each in its own way: none of them costs another client anything.

Each test ends with a good client that reads everything, with the bad one still connected.
"""

import contextlib
import random
from pathlib import Path

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.memory_device import MemoryDevice, WritableMemoryDevice
from fakes.nbd_servers import certificates
from fakes.served import flags, go, option, raw_client, request, serving, string, until_hung_up
from virtbackup_async.nbd import open_nbd
from virtbackup_async.nbd.protocol.constants import Command, Option
from virtbackup_async.nbd.server import connection as connection_module
from virtbackup_async.nbd.server import server as server_module
from virtbackup_async.nbd.server.connection import REQUESTS_AT_ONCE
from virtbackup_async.nbd.server.inbox import MAX_KEPT_BYTES, ClientInbox
from virtbackup_async.nbd.server.listening import server_tls
from virtbackup_async.nbd.server.session import PIECES_AT_ONCE

MIB = 1 << 20
READY = flags() + option(Option.STRUCTURED_REPLY) + go()
SIMPLE = flags() + go()
CONTENT = random.Random(3).randbytes(4 * MIB)


@pytest.fixture
def short(tmp_path_factory):
    return tmp_path_factory.mktemp("s")


@pytest.fixture
def device():
    return WritableMemoryDevice(CONTENT)


async def reads_everything(served, content=CONTENT):
    target = bytearray(len(content))
    with anyio.fail_after(60):
        async with open_nbd(served.address) as client:
            await client.read_into(0, memoryview(target))
    return bytes(target) == content


def open_files():
    return len([*Path("/proc/self/fd").iterdir()])


async def received(stream, length):
    got = b""
    while len(got) < length:
        got += await stream.receive(length - len(got))
    return got


@pytest.mark.parametrize(
    "said",
    [b"", flags()[:2], flags(), flags() + option(Option.LIST)[:7], READY[:-1], READY,
     READY + request(Command.READ, 0, 512)[:27],
     READY + request(Command.WRITE, 0, 4096) + b"half"],
)  # fmt: skip
@pytest.mark.parametrize("drops", [True, False])
async def test_a_client_that_says_half_and_drops_or_waits(short, device, said, drops):
    async with serving(short, vda=device) as served, raw_client(served) as stream:
        await stream.send(said or b"\0")
        if drops:
            await stream.aclose()
        assert await reads_everything(served)
    assert device.content[4:] == CONTENT[4:]


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n\r\n" * 3,
        flags() + option(Option.GO, length=(1 << 32) - 1),
        READY + request(Command.READ, magic=0),
        READY + request(Command.WRITE, 0, (1 << 32) - 1) + b"x" * 1000,
        READY + b"\0" * 28,
    ],
)
async def test_a_client_that_breaks_the_protocol_is_hung_up_on(short, device, said):
    async with serving(short, vda=device) as served, raw_client(served) as stream:
        with contextlib.suppress(anyio.BrokenResourceError):
            await stream.send(said)
        await until_hung_up(stream)
        assert await reads_everything(served)


@pytest.mark.parametrize("command", [Command.READ, Command.TRIM, Command.WRITE_ZEROES, 77])
async def test_lengths_of_four_gib_are_refused(short, device, command):
    async with serving(short, vda=device) as served, raw_client(served) as stream:
        await stream.send(SIMPLE)
        await stream.send(request(command, 0, (1 << 32) - 1, cookie=9) * 3)
        await stream.send(request(Command.DISC))
        got = await until_hung_up(stream)
        refusal = b"\x67\x44\x66\x98" + b"\0\0\0\x16" + b"\0" * 7 + b"\x09"
        assert got.endswith(refusal * 3)
        assert await reads_everything(served)


async def test_data_that_is_refused_is_skipped(short):
    """The next request is found behind it."""
    device = MemoryDevice(CONTENT)
    async with serving(short, vda=device) as served, raw_client(served) as stream:
        await stream.send(SIMPLE)
        await stream.send(request(Command.WRITE, 0, 3 * MIB) + b"\xff" * 3 * MIB)
        await stream.send(request(Command.READ, 0, 4) + request(Command.DISC))
        assert (await until_hung_up(stream)).endswith(CONTENT[:4])


async def test_thousands_of_requests_are_answered_a_few_at_a_time(short):
    device = MemoryDevice(CONTENT)
    device.may_read = anyio.Event()
    async with serving(short, vda=device) as served, raw_client(served) as stream:
        await stream.send(READY)

        async def ask():
            await stream.send(request(Command.READ, 0, 512) * 5000)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            with anyio.fail_after(60):
                while device.under_way < PIECES_AT_ONCE:
                    await anyio.lowlevel.checkpoint()
            assert len(device.reads) == PIECES_AT_ONCE
            device.may_read.set()
            await received(stream, 5000 * (28 + 512))
        assert device.most_under_way == PIECES_AT_ONCE < REQUESTS_AT_ONCE
        assert await reads_everything(served)


async def test_a_client_that_reads_nothing_stops_being_read(short):
    """It asks for a GiB, and takes none of it: what it costs is bounded."""
    device = MemoryDevice(random.Random(4).randbytes(32 * MIB))
    async with serving(short, vda=device) as served, raw_client(served) as stream:
        await stream.send(READY + request(Command.READ, 0, 32 * MIB) * 32)
        with anyio.fail_after(60):
            while len(device.reads) < 2:
                await anyio.lowlevel.checkpoint()
        assert await reads_everything(served, bytes(device.content))
        silent = sum(length for _, length in device.reads) - 32 * MIB
        # What is in the kernel, in the transport, and in the pieces under way.
        assert silent <= (2 * PIECES_AT_ONCE + 4) * MIB


@pytest.mark.parametrize("mib", [1, 3])
async def test_simple_replies_are_never_mixed(short, mib):
    """Many reads at once by a client without structured replies; each reply is in one piece."""
    device = MemoryDevice(CONTENT)
    async with serving(short, vda=device) as served, raw_client(served) as stream:
        await stream.send(SIMPLE)
        await received(stream, 18 + 2 * 20 + 12 + 14 + 20)

        async def ask():
            for cookie in range(24):
                await stream.send(request(Command.READ, cookie * 4096, mib * MIB, cookie=cookie))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            seen = set()
            for _ in range(24):
                head = await received(stream, 16)
                cookie = int.from_bytes(head[8:], "big")
                assert head[:8] == b"\x67\x44\x66\x98\0\0\0\0"
                start = cookie * 4096
                assert await received(stream, mib * MIB) == CONTENT[start : start + mib * MIB]
                seen.add(cookie)
        assert seen == set(range(24))


async def test_a_simple_reply_that_cannot_be_ended_hangs_up(short):
    device = MemoryDevice(CONTENT, damaged=[(2 * MIB, 2 * MIB + 1)])
    async with serving(short, vda=device) as served:
        async with raw_client(served) as stream:
            await stream.send(SIMPLE + request(Command.READ, 0, 4 * MIB))
            assert len(await until_hung_up(stream)) < 4 * MIB
        async with raw_client(served) as stream:
            await stream.send(SIMPLE + request(Command.READ, 2 * MIB, MIB))
            await stream.send(request(Command.DISC))
            assert (await until_hung_up(stream))[-16:-8] == b"\x67\x44\x66\x98\0\0\0\x05"


async def test_silent_clients_keep_nobody_out(short, device, monkeypatch):
    monkeypatch.setattr(server_module, "CLIENTS_AT_ONCE", 5)
    async with serving(short, vda=device) as served, contextlib.AsyncExitStack() as stack:
        for _ in range(20):
            await stack.enter_async_context(raw_client(served))
        assert await reads_everything(served)


async def test_clients_that_have_an_export_are_not_sent_away(short, device, monkeypatch):
    monkeypatch.setattr(server_module, "CLIENTS_AT_ONCE", 3)
    async with serving(short, vda=device) as served, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(open_nbd(served.address)) for _ in range(3)]
        async with raw_client(served) as stream:
            assert await until_hung_up(stream) == b""
        for client in clients:
            target = bytearray(10)
            await client.read_into(0, memoryview(target))
            assert target == CONTENT[:10]


async def test_a_client_that_never_negotiates_is_sent_away(short, device, monkeypatch):
    monkeypatch.setattr(connection_module, "OPEN_TIMEOUT_S", 0)
    async with serving(short, vda=device) as served, raw_client(served) as stream:
        await until_hung_up(stream)


async def test_bytes_ahead_of_tls_do_not_count_as_encrypted(short, device, tmp_path):
    tls = server_tls(certificates(tmp_path / "keys"))
    async with serving(short, tls, vda=device) as served, raw_client(served) as stream:
        await stream.send(flags() + option(Option.STARTTLS) + option(Option.LIST))
        got = await until_hung_up(stream)
        assert b"vda" not in got


async def test_hundreds_of_clients_one_after_the_other_leave_nothing(short, device):
    async with serving(short, vda=device) as served:
        assert await reads_everything(served)
        before = open_files()
        for _ in range(300):
            async with raw_client(served) as stream:
                await stream.send(READY)
        assert await reads_everything(served)
        with anyio.fail_after(60):
            while open_files() > before:
                await anyio.lowlevel.checkpoint()


class TestInbox:
    class Transport:
        paused = 0

        def pause_reading(self):
            self.paused += 1

        def resume_reading(self):
            self.paused -= 1

    async def test_a_client_that_sends_too_much_waits(self):
        transport, inbox = self.Transport(), ClientInbox()
        inbox.use(transport)
        inbox.add(b"x" * (MAX_KEPT_BYTES - 1))
        assert transport.paused == 0
        inbox.add(b"x" * 10)
        inbox.add(b"x" * 10)
        assert transport.paused == 1
        assert await inbox.take(MAX_KEPT_BYTES) == b"x" * MAX_KEPT_BYTES
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(inbox.take, MAX_KEPT_BYTES)
            await anyio.wait_all_tasks_blocked()
            assert transport.paused == 0
            inbox.add(b"x" * MAX_KEPT_BYTES)


REQUESTS = st.builds(
    request,
    st.integers(0, 9), st.sampled_from([0, 1, 4096, 4 * MIB - 1, 4 * MIB, 1 << 63]),
    st.sampled_from([0, 1, 512, 5000, MIB, 4 * MIB, (1 << 32) - 1]),
    cookie=st.integers(0, 3), flags=st.integers(0, 31),
)  # fmt: skip


@given(
    st.sampled_from([READY, SIMPLE, flags(), b"", READY[:-3]]),
    st.lists(st.one_of(REQUESTS, st.binary(max_size=60), st.just(string("vda"))), max_size=12),
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_any_bytes_leave_the_server_whole(short, first, words):
    device = MemoryDevice(CONTENT)
    (short / "nbd.sock").unlink(missing_ok=True)
    async with serving(short, vda=device) as served, raw_client(served) as stream:
        with contextlib.suppress(anyio.BrokenResourceError):
            await stream.send(first + b"".join(words) or b"\0")
            await stream.send_eof()
        await until_hung_up(stream)
        assert await reads_everything(served)
    assert [error for *_, error in served.failures] == []

"""A server that says nothing any more is told after a time; one that is slow is waited for.

The loop's clock is moved by hand, so the deadlines are the program's own.
"""

import anyio
import pytest

from fakes import nbd_wire as wire
from fakes.moved_clock import moved_clock
from fakes.nbd_peer import ACK, CLIENT_HELLO, READY, REQUEST, peer, receive
from virtbackup_async.errors import NbdConnectionError
from virtbackup_async.nbd import open_nbd
from virtbackup_async.nbd.client.connection import MAX_IN_FLIGHT
from virtbackup_async.nbd.protocol.constants import (
    OPEN_TIMEOUT_S,
    SILENCE_TIMEOUT_S,
    Option,
)

ALMOST_S = SILENCE_TIMEOUT_S - 1
WHOLE_S = SILENCE_TIMEOUT_S + 1
SILENT = f"sock: the server was silent for {SILENCE_TIMEOUT_S} s"
CONTENT = bytes(range(256)) * 2
REPLY = wire.data(1, 0, CONTENT, done=True)
CONTEXT = "base:allocation"
WRITABLE = 1 | 1 << 2 | 1 << 5 | 1 << 6  # and it takes flushes, trims and zeroes


@pytest.fixture
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("s") / "sock"


@pytest.fixture
async def clock(monkeypatch):
    with moved_clock(monkeypatch) as clock:
        yield clock


async def silent(stream):
    await stream.send(READY)
    await anyio.sleep_forever()


async def read(client):
    buffer = bytearray(len(CONTENT))
    await client.read_into(0, memoryview(buffer))
    return bytes(buffer)


async def test_a_server_that_never_answers_is_told_in_time_and_not_before(path, clock):
    ended = anyio.Event()

    async def fail(client):
        with pytest.raises(NbdConnectionError, match=SILENT) as caught:
            await read(client)
        assert "storage" in caught.value.hint
        ended.set()

    async with (
        peer(path, silent) as address,
        open_nbd(address) as client,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(fail, client)
        await anyio.wait_all_tasks_blocked()
        clock.move(ALMOST_S)
        await anyio.wait_all_tasks_blocked()
        assert not ended.is_set()
        clock.move(WHOLE_S - ALMOST_S)
        await ended.wait()
        with pytest.raises(NbdConnectionError, match=SILENT):
            await read(client)  # at once


@pytest.mark.parametrize("said", [1, 20, 28, 100, len(REPLY) - 1])
async def test_a_server_that_stops_in_the_middle_is_told(path, clock, said):
    async def script(stream):
        await stream.send(READY)
        await receive(stream, CLIENT_HELLO + REQUEST)
        await stream.send(REPLY[:said])
        while True:  # once is not enough: the client may hear what was said only then
            clock.move(WHOLE_S)
            await anyio.sleep(0)

    async with peer(path, script) as address, open_nbd(address) as client:
        with pytest.raises(NbdConnectionError, match=SILENT):
            await read(client)


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.read_into(0, memoryview(bytearray(512))),
        lambda client: client.write(0, bytes(512)),
        lambda client: client.write(0, bytes(20 << 20)),
        lambda client: client.write_zeroes(0, 512),
        lambda client: client.trim(0, 512),
        lambda client: client.flush(),
        lambda client: client.block_status(0, 512),
    ],
    ids=["read", "write", "write that is not taken", "zeroes", "trim", "flush", "block status"],
)
async def test_nothing_is_waited_for_without_end(path, clock, ask):
    async def script(stream):
        await stream.send(
            wire.GREETING
            + wire.option_reply(Option.STRUCTURED_REPLY, ACK)
            + wire.option_reply(Option.SET_META_CONTEXT, 4, b"\0\0\0\1" + CONTEXT.encode())
            + wire.option_reply(Option.SET_META_CONTEXT, ACK)
            + wire.export_info(Option.GO, 32 << 20, flags=WRITABLE)
            + wire.option_reply(Option.GO, ACK)
        )
        await anyio.sleep_forever()

    async def fail(client):
        with pytest.raises(NbdConnectionError, match=SILENT):
            await ask(client)
        ended.set()

    ended = anyio.Event()
    async with (
        peer(path, script) as address,
        open_nbd(address, contexts=[CONTEXT]) as client,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(fail, client)
        while not ended.is_set():  # what the kernel takes of a write is progress
            clock.move(WHOLE_S)
            await anyio.sleep(0)


async def test_all_who_wait_are_told_and_who_has_no_slot_yet(path, clock):
    async def fail(client):
        with pytest.raises(NbdConnectionError, match=SILENT):
            await read(client)

    async with (
        peer(path, silent) as address,
        open_nbd(address) as client,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(MAX_IN_FLIGHT + 5):
            tasks.start_soon(fail, client)
        await anyio.wait_all_tasks_blocked()
        clock.move(WHOLE_S)


async def test_a_slow_server_is_waited_for_as_long_as_anything_comes(path, clock):
    async def script(stream):
        await stream.send(READY)
        await receive(stream, CLIENT_HELLO + REQUEST)
        for start in range(0, len(REPLY), 20):
            clock.move(ALMOST_S)
            await stream.send(REPLY[start : start + 20])
            await anyio.wait_all_tasks_blocked()
        await anyio.sleep_forever()

    async with peer(path, script) as address, open_nbd(address) as client:
        assert await read(client) == CONTENT


async def test_and_one_that_takes_what_is_written(path, clock):
    length = 16 << 20

    async def script(stream):
        await stream.send(
            wire.GREETING
            + wire.option_reply(Option.STRUCTURED_REPLY, ACK)
            + wire.export_info(Option.GO, length, flags=WRITABLE)
            + wire.option_reply(Option.GO, ACK)
        )
        await receive(stream, CLIENT_HELLO + REQUEST)
        for _ in range(16):
            clock.move(ALMOST_S)
            await receive(stream, length // 16)
        await stream.send(wire.none(1))
        await anyio.sleep_forever()

    async with peer(path, script) as address, open_nbd(address) as client:
        await client.write(0, bytes(length))


async def test_who_was_not_asked_may_be_silent(path, clock):
    asked = anyio.Event()

    async def script(stream):
        await stream.send(READY)
        await receive(stream, CLIENT_HELLO)
        for cookie in (1, 2):
            await receive(stream, REQUEST)
            clock.move(ALMOST_S)
            await anyio.wait_all_tasks_blocked()
            await stream.send(wire.data(cookie, 0, CONTENT, done=True))
        await asked.wait()

    async with peer(path, script) as address, open_nbd(address) as client:
        assert await read(client) == CONTENT
        for _ in range(3):
            clock.move(WHOLE_S)
            await anyio.wait_all_tasks_blocked()
        assert await read(client) == CONTENT
        asked.set()


@pytest.mark.parametrize("said", [b"", wire.GREETING[:7], wire.GREETING, READY[:-1]])
async def test_the_negotiation_has_its_time(path, clock, said):
    async def script(stream):
        await stream.send(said)
        clock.move(OPEN_TIMEOUT_S + 1)
        await anyio.sleep_forever()

    async with peer(path, script) as address:
        with pytest.raises(NbdConnectionError, match=r"does not answer within 30 s") as caught:
            async with open_nbd(address):
                pass
    assert "storage" in caught.value.hint

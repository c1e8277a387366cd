"""A scripted peer on a real socket: silent, talkative, dying, wrong. Nobody waits for ever."""

import anyio
import pytest

from fakes import nbd_wire as wire
from fakes.nbd_peer import ACK, CLIENT_HELLO, READY, REQUEST, peer, receive
from virtbackup_async.errors import NbdConnectionError, NbdProtocolError, NbdRefusedError
from virtbackup_async.nbd import open_nbd
from virtbackup_async.nbd.client import connection as connection_module
from virtbackup_async.nbd.protocol.constants import Option
from virtbackup_async.nbd.protocol.export import Tls


@pytest.fixture
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("s") / "sock"


def says(*words, hears=CLIENT_HELLO):
    """A script: greet properly; then say one word after each request."""

    async def script(stream):
        await stream.send(READY)
        await receive(stream, hears)
        for word in words:
            await receive(stream, REQUEST)
            await stream.send(word)
        await anyio.sleep_forever()

    return script


def target(length=512):
    return memoryview(bytearray(length))


async def test_it_hangs_up_before_the_greeting(path):
    async def script(stream):
        pass

    async with peer(path, script) as address:
        with pytest.raises(NbdConnectionError, match=r"closed the connection|broke"):
            async with open_nbd(address):
                pass


async def test_it_never_says_anything(path):
    async def script(stream):
        await anyio.sleep_forever()

    async with peer(path, script) as address:
        with pytest.raises(NbdConnectionError, match=r"does not answer within 0\.05 s"):
            async with open_nbd(address, timeout_s=0.05):
                pass


async def test_it_talks_without_end(path):
    async def script(stream):
        while True:
            await stream.send(wire.GREETING * 1000)

    async with peer(path, script) as address:
        with pytest.raises(NbdProtocolError):
            async with open_nbd(address):
                pass


async def test_it_speaks_in_the_clear_before_encryption(path):
    """What a man in the middle slips in must not be taken for what comes encrypted."""
    slipped = wire.option_reply(Option.STARTTLS, ACK) + wire.option_reply(Option.GO, ACK)

    async def script(stream):
        await stream.send(wire.GREETING + slipped)
        await anyio.sleep_forever()

    async with peer(path, script) as address:
        with pytest.raises(NbdProtocolError, match="something unasked"):
            async with open_nbd(address, tls=Tls(None, "nbd.test")):
                pass


async def test_it_answers_before_it_is_asked(path):
    async def script(stream):
        await stream.send(READY + wire.none(1))
        await anyio.sleep_forever()

    async with peer(path, script) as address:
        with pytest.raises(NbdProtocolError, match="something unasked"):
            async with open_nbd(address):
                pass


async def test_it_breaks_the_protocol_under_many(path):
    async with peer(path, says(wire.data(77, 0, b"x"))) as address, open_nbd(address) as client:

        async def read():
            with pytest.raises(NbdProtocolError, match="a request that was not sent"):
                await client.read_into(0, target())

        async with anyio.create_task_group() as tasks:
            for _ in range(connection_module.MAX_IN_FLIGHT + 5):
                tasks.start_soon(read)
        await read()


async def test_it_dies_in_the_middle_of_data(path):
    async def script(stream):
        await stream.send(READY)
        await receive(stream, CLIENT_HELLO + REQUEST)
        await stream.send(wire.data(1, 0, bytes(512))[:100])

    async with peer(path, script) as address, open_nbd(address) as client:
        with pytest.raises(NbdConnectionError, match="closed the connection"):
            await client.read_into(0, target())


async def test_late_data_of_a_cancelled_read_is_thrown_away(path):
    go_on, begun = anyio.Event(), anyio.Event()

    async def script(stream):
        await stream.send(READY)
        await receive(stream, CLIENT_HELLO + REQUEST)
        reply = wire.data(1, 0, b"\xaa" * 512, done=True)
        await stream.send(reply[:200])
        begun.set()
        await go_on.wait()
        await stream.send(reply[200:])
        await receive(stream, REQUEST)
        await stream.send(wire.data(2, 0, b"\xbb" * 512, done=True))
        await anyio.sleep_forever()

    async with peer(path, script) as address, open_nbd(address) as client:
        buffer = target()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.read_into, 0, buffer)
            await begun.wait()
            tasks.cancel_scope.cancel()
        buffer[:] = b"\xcc" * 512
        go_on.set()
        other = target()
        await client.read_into(0, other)
        assert bytes(buffer) == b"\xcc" * 512
        assert bytes(other) == b"\xbb" * 512


async def test_it_does_not_read_what_is_written(path, monkeypatch):
    """The writers wait, and neither they nor the close wait for ever."""
    monkeypatch.setattr(connection_module, "CLOSE_TIMEOUT_S", 0.05)
    written = []

    async def script(stream):
        await stream.send(READY)
        await anyio.sleep_forever()

    async def write(client):
        await client.write(0, bytes(1 << 20))
        written.append(client)

    with anyio.fail_after(10):
        async with (
            peer(path, script) as address,
            open_nbd(address) as client,
            anyio.create_task_group() as tasks,
        ):
            for number in range(20):
                tasks.start_soon(write, client, name=f"writer {number}")
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
    assert not written


async def test_it_is_another_one_each_time(path):
    sizes = iter([1 << 20, 2 << 20])

    async def script(stream):
        await stream.send(
            wire.GREETING
            + wire.option_reply(Option.STRUCTURED_REPLY, ACK)
            + wire.export_info(Option.GO, next(sizes), flags=0x101)
            + wire.option_reply(Option.GO, ACK)
        )
        await anyio.sleep_forever()

    async with peer(path, script) as address:
        with pytest.raises(NbdProtocolError, match="something else on each connection"):
            async with open_nbd(address, connections=2):
                pass


async def test_flush_is_refused_where_it_means_nothing(path):
    async with peer(path, says()) as address, open_nbd(address) as client:
        with pytest.raises(NbdRefusedError, match="flushes"):
            await client.flush()

"""An NBD server on a real socket, whose every word a test says."""

from contextlib import asynccontextmanager, suppress

import anyio

from fakes import nbd_wire as wire
from virtbackup_async.nbd import UnixAddress
from virtbackup_async.nbd.protocol.constants import Option, OptionReply

ACK = OptionReply.ACK
READY = (
    wire.GREETING
    + wire.option_reply(Option.STRUCTURED_REPLY, ACK)
    + wire.export_info(Option.GO, 1 << 20, flags=0x101)
    + wire.option_reply(Option.GO, ACK)
)
CLIENT_HELLO = 4 + 16 + 16 + 4 + 4  # flags, STRUCTURED_REPLY, GO with an empty name and one info
REQUEST = 28


@asynccontextmanager
async def peer(path, script):
    """A server that gives each client to ``script``, then hangs up."""
    listener = await anyio.create_unix_listener(path)

    async def serve(stream):
        async with stream:
            with suppress(anyio.BrokenResourceError, anyio.EndOfStream):
                await script(stream)

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield UnixAddress(path)
        tasks.cancel_scope.cancel()


async def receive(stream, length):
    got = b""
    while len(got) < length:
        got += await stream.receive(length - len(got))
    return got

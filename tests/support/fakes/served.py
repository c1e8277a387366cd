"""The NBD server with devices of a test, and a client that says exactly what the test says."""

import contextlib
import struct
from contextlib import asynccontextmanager

import anyio

from virtbackup_async.nbd import UnixAddress
from virtbackup_async.nbd.protocol.constants import (
    OPTION_MAGIC,
    REQUEST_MAGIC,
    Info,
    Option,
)
from virtbackup_async.nbd.server.listening import listen_unix
from virtbackup_async.nbd.server.server import DeviceExport, open_server


class Served:
    """A server at work.

    ``failures`` has export, offset, length and error of each range that a device failed at.
    """

    def __init__(self, path):
        self.path = path
        self.address = UnixAddress(path)
        self.failures = []

    def on_failure(self, *failure):
        self.failures.append(failure)


@asynccontextmanager
async def serving(directory, tls=None, **devices):
    """Serve devices at a socket in ``directory``."""
    served = Served(directory / "nbd.sock")
    exports = {name: DeviceExport(device) for name, device in devices.items()}
    with listen_unix(served.path) as listener:
        async with open_server(listener, exports, tls=tls, on_failure=served.on_failure):
            yield served


@asynccontextmanager
async def raw_client(served):
    async with await anyio.connect_unix(served.path) as stream:
        yield stream


def flags(number=3):
    return struct.pack(">I", number)


def option(kind, data=b"", *, length=None):
    return struct.pack(">QII", OPTION_MAGIC, kind, len(data) if length is None else length) + data


def string(text):
    data = text.encode()
    return struct.pack(">I", len(data)) + data


def go(name="", *kinds):
    kinds = kinds or (Info.BLOCK_SIZE,)
    return option(Option.GO, string(name) + struct.pack(f">H{len(kinds)}H", len(kinds), *kinds))


def request(command, offset=0, length=0, *, cookie=1, flags=0, magic=REQUEST_MAGIC):
    return struct.pack(">IHHQQI", magic, flags, command, cookie, offset, length)


async def until_hung_up(stream):
    """Read until the server hangs up; return what it sent."""
    got = b""
    with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
        while True:
            got += await stream.receive()
    return got

"""The server: accepts clients, and gives each of them a connection of its own.

So many clients may be connected. If there is no place for another one, the client that has been
negotiating for the longest time gives way: one that is silent keeps nobody out.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from anyio import CancelScope, WouldBlock, create_memory_object_stream, create_task_group

from virtbackup_async.concurrency import open_background
from virtbackup_async.nbd.protocol.constants import ExportFlag
from virtbackup_async.nbd.protocol.export import BlockSizes
from virtbackup_async.nbd.protocol.offer import Offered
from virtbackup_async.nbd.server.connection import ClientConnection
from virtbackup_async.nbd.server.device import Device, Export, OnFailure, WritableDevice

_log = logging.getLogger(__name__)

CLIENTS_AT_ONCE: Final = 64
_PREFERRED_BYTES: Final = 256 * 1024
_READING: Final = ExportFlag.HAS_FLAGS | ExportFlag.CAN_MULTI_CONN
_WRITING: Final = (
    ExportFlag.SEND_FLUSH
    | ExportFlag.SEND_FUA
    | ExportFlag.SEND_TRIM
    | ExportFlag.SEND_WRITE_ZEROES
)


class DeviceExport:
    """A device as an export: writable if the device is, and the caller wants it."""

    def __init__(self, device: Device, description: str = "") -> None:
        self.device = device
        is_writable = isinstance(device, WritableDevice)
        flags = _READING | (_WRITING if is_writable else ExportFlag.READ_ONLY)
        sizes = BlockSizes(preferred=_PREFERRED_BYTES)
        self.offered = Offered(device.size_bytes, flags, description, sizes)


@asynccontextmanager
async def open_server(
    listener: socket.socket,
    exports: Mapping[str, Export],
    *,
    tls: ssl.SSLContext | None = None,
    on_failure: OnFailure,
) -> AsyncGenerator[None]:
    """Serve the exports to all clients that come, until the block ends; it ends all connections.

    Args:
        listener: a socket that listens; the caller closes it.
        exports: by name.
        tls: with it, every connection must be encrypted.
        on_failure: called when a device fails to do what a client asks.
    """
    async with open_background() as tasks:
        clients = _Clients()
        tasks.start_soon(clients.serve_all, name="NBD server")
        loop = asyncio.get_running_loop()

        def connection() -> ClientConnection:
            return ClientConnection(exports, tls, on_failure, clients.add)

        if listener.family == socket.AF_UNIX:
            server = await loop.create_unix_server(connection, sock=listener)
        else:
            server = await loop.create_server(connection, sock=listener)
        try:
            yield
        finally:
            server.close()
            clients.abort_all()
            with CancelScope(shield=True):
                await server.wait_closed()


class _Clients:
    """The clients that are connected, in the order in which they came."""

    def __init__(self) -> None:
        self._connected: dict[ClientConnection, None] = {}
        # A transport's callback can start no task of a group.
        self._come, self._coming = create_memory_object_stream[ClientConnection](CLIENTS_AT_ONCE)

    def add(self, client: ClientConnection) -> None:
        """Take a client that has just connected; called by its transport."""
        if len(self._connected) >= CLIENTS_AT_ONCE:
            negotiating = (one for one in self._connected if not one.has_agreed)
            victim = next(negotiating, client)
            _log.info("%d NBD clients are connected: one is turned away", CLIENTS_AT_ONCE)
            victim.abort()
            self._connected.pop(victim, None)
            if victim is client:
                return
        try:
            self._come.send_nowait(client)
        except WouldBlock:
            client.abort()
        else:
            self._connected[client] = None

    async def serve_all(self) -> None:
        """Serve the clients as they come, until cancelled."""
        with self._come, self._coming:
            async with create_task_group() as tasks:
                async for client in self._coming:
                    tasks.start_soon(self._serve, client, name="NBD client")

    def abort_all(self) -> None:
        """Hang up on all clients."""
        for client in self._connected:
            client.abort()

    async def _serve(self, client: ClientConnection) -> None:
        try:
            await client.serve()
        except Exception:  # noqa: BLE001 -- a defect costs this client, and no other one
            _log.exception("an NBD client")
        finally:
            self._connected.pop(client, None)

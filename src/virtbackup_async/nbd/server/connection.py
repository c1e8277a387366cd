"""One client's connection to the server.

::

    transport --> inbox --> requests, one after the other --> writes: done at once, in pieces
                                     |
                                     +--> a task each for all others --> pieces --> transport

A client costs a fixed amount of memory, whatever it sends and however little it reads: so many
requests are under way, so many pieces of their data are in memory, and no piece is read from the
device while the transport has more to send than it should. Then the client's further bytes wait in
the kernel. Another client notices nothing of it, except that all share the processors.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Mapping
from typing import Final, cast

import anyio
from anyio.abc import TaskGroup

from virtbackup_async.errors import NbdError, NbdProtocolError
from virtbackup_async.nbd.protocol.constants import OPEN_TIMEOUT_S, Command
from virtbackup_async.nbd.protocol.incoming import HEADER_BYTES, Incoming, parse
from virtbackup_async.nbd.protocol.offer import Agreed, offer
from virtbackup_async.nbd.protocol.steps import Receive, Send
from virtbackup_async.nbd.server.device import Export, OnFailure
from virtbackup_async.nbd.server.inbox import ClientInbox, gone
from virtbackup_async.nbd.server.session import Session

_log = logging.getLogger(__name__)

REQUESTS_AT_ONCE: Final = 128
CLOSE_TIMEOUT_S: Final = 5
_MOST_UNSENT_BYTES: Final = 1024 * 1024
_SOCKET_BUFFER_BYTES: Final = 1024 * 1024


class ClientConnection(asyncio.Protocol):
    """A connection; ``server.py`` makes one for each client, and runs ``serve``.

    Attributes:
        has_agreed: whether the negotiation is over.
    """

    def __init__(
        self,
        exports: Mapping[str, Export],
        tls: ssl.SSLContext | None,
        on_failure: OnFailure,
        begin: Callable[["ClientConnection"], None],
    ) -> None:
        self.has_agreed = False
        self._exports = exports
        self._tls = tls
        self._on_failure = on_failure
        self._begin = begin
        self._has_begun = False
        self._inbox = ClientInbox()
        self._transport: asyncio.Transport | None = None
        self._writable = anyio.Event()
        self._closed = anyio.Event()
        self._requests = anyio.Semaphore(REQUESTS_AT_ONCE, fast_acquire=True)

    async def serve(self) -> None:
        """Serve the client until it goes, or breaks the protocol; raises no ``NbdError``."""
        try:
            with anyio.fail_after(OPEN_TIMEOUT_S):
                agreed = await self._negotiate()
            if agreed is not None:
                self.has_agreed = True
                await self._transmit(agreed)
        except TimeoutError:
            _log.info("an NBD client did not negotiate in time")
        except NbdError as error:
            _log.info("an NBD client: %s", error.message)
        finally:
            await self._aclose()

    def abort(self) -> None:
        """Hang up at once."""
        # A closed TLS transport accepts no abort.
        if self._transport is not None and not self._closed.is_set():
            self._transport.abort()

    async def send(self, *parts: bytes) -> None:
        """Write parts of a reply, with no other bytes between them.

        Raises:
            NbdConnectionError: the client is gone.
        """
        await self.wait_writable()
        if self._closed.is_set():
            raise gone(None)
        transport = cast("asyncio.Transport", self._transport)
        for part in parts:
            transport.write(part)

    async def wait_writable(self) -> None:
        """Wait until the client has taken most of what is written already."""
        while not self._writable.is_set():
            await self._writable.wait()

    async def take(self, length: int) -> bytes:
        """Return the next bytes that the client sends.

        Raises:
            NbdConnectionError: the client is gone.
        """
        return await self._inbox.take(length)

    async def discard(self, length: int) -> None:
        """Drop the next bytes that the client sends; raises as ``take``."""
        await self._inbox.discard(length)

    async def _negotiate(self) -> Agreed | None:
        offered = {name: export.offered for name, export in self._exports.items()}
        steps = offer(offered, tls=self._tls is not None)
        answer = b""
        while True:
            try:
                step = steps.send(answer) if answer else next(steps)
            except StopIteration as end:
                return cast("Agreed | None", end.value)
            answer = b""
            if isinstance(step, Send):
                await self.send(step.data)
            elif isinstance(step, Receive):
                answer = await self.take(step.length)
            else:
                self._inbox.expect_empty()
                await self._start_tls(cast("ssl.SSLContext", self._tls))

    async def _start_tls(self, tls: ssl.SSLContext) -> None:
        loop = asyncio.get_running_loop()
        plain = cast("asyncio.Transport", self._transport)
        try:
            transport = await loop.start_tls(plain, self, tls, server_side=True)
        except OSError as error:  # an SSLError is one
            raise NbdProtocolError(f"TLS failed: {error.strerror or error}") from error
        if transport is None:
            raise gone(None)
        self._transport = transport
        self._inbox.use(transport)

    async def _transmit(self, agreed: Agreed) -> None:
        session = Session(agreed, self._exports[agreed.name], self, self._on_failure)
        async with anyio.create_task_group() as tasks:
            try:
                while (request := parse(await self.take(HEADER_BYTES))).command is not Command.DISC:
                    await self._take(session, request, tasks)
            except NbdError as error:
                _log.debug("an NBD client: %s", error.message)
                tasks.cancel_scope.cancel()

    async def _take(self, session: Session, request: Incoming, tasks: TaskGroup) -> None:
        """Begin to answer a request; a write is answered here, since its data comes next."""
        fault = session.fault_of(request)
        if fault is not None:
            await self.discard(request.data_bytes)
            await session.refuse(request, fault)
        elif request.command is Command.WRITE:
            await session.write(request)
        else:
            await self._requests.acquire()
            tasks.start_soon(self._answer, session, request, name=f"NBD {request.command}")

    async def _answer(self, session: Session, request: Incoming) -> None:
        try:
            await session.answer(request)
        except NbdError:
            self.abort()
        finally:
            self._requests.release()

    async def _aclose(self) -> None:
        """Send what is written already, if the client takes it in time, and hang up."""
        if self._transport is not None:
            self._transport.close()
            with anyio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
                await self._closed.wait()
            self.abort()

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_MOST_UNSENT_BYTES)
        self._inbox.use(self._transport)
        self._writable.set()
        if not self._has_begun:  # it is called again for TLS
            self._has_begun = True
            # Bytes that do not fit into the socket are copied.
            own = self._transport.get_extra_info("socket")
            own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)
            self._begin(self)

    def data_received(self, data: bytes) -> None:
        self._inbox.add(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed.set()
        self._inbox.fail(gone(exc))
        self._writable.set()

    def pause_writing(self) -> None:
        if not self._closed.is_set():
            self._writable = anyio.Event()

    def resume_writing(self) -> None:
        self._writable.set()

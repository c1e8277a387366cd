"""One connection to an NBD server.

Requests are sent at once. The transport's callbacks receive the replies straight into the readers'
memory and wake the waiting tasks; there is no task and no queue in between. Invariants: At most
``MAX_IN_FLIGHT`` requests are in flight. Once a read is cancelled, nothing is written to its memory
any more. When the connection breaks, or the server is silent for too long, every waiting task gets
an error with the reason.
"""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Final, cast

import anyio

from virtbackup_async.errors import NbdConnectionError, NbdError, NbdRefusedError
from virtbackup_async.nbd.client.inbox import Inbox
from virtbackup_async.nbd.client.silence import Silence
from virtbackup_async.nbd.protocol.constants import Command, ExportFlag
from virtbackup_async.nbd.protocol.export import Address, Export, Tls, UnixAddress
from virtbackup_async.nbd.protocol.handshake import Steps, handshake
from virtbackup_async.nbd.protocol.replies import ReplyParser
from virtbackup_async.nbd.protocol.request import Request
from virtbackup_async.nbd.protocol.steps import Receive, Send

MAX_IN_FLIGHT: Final = 64
CLOSE_TIMEOUT_S: Final = 5
SILENT_HINT: Final = "It is there, but does nothing: look at the storage of the images it serves."


@asynccontextmanager
async def open_connection(  # noqa: PLR0913 -- the address, and all by keyword
    address: Address,
    name: str,
    contexts: Sequence[str],
    *,
    tls: Tls | None,
    timeout_s: float,
    silence_s: float,
) -> AsyncGenerator["Connection"]:
    """Connect to a server and negotiate an export; see ``open_nbd``."""
    connection = Connection(address, silence_s)
    try:
        try:
            with anyio.fail_after(timeout_s):
                await connection.connect()
                await connection.negotiate(name, contexts, tls)
        except TimeoutError as error:
            why = f"NBD server {address} does not answer within {timeout_s:g} s"
            raise NbdConnectionError(why, hint=SILENT_HINT) from error
        yield connection
    finally:
        await connection.aclose()


class Connection(asyncio.BufferedProtocol):
    """A connection; only ``open_connection`` makes one."""

    def __init__(self, address: Address, silence_s: float) -> None:
        self.export = Export("", 0, ExportFlag(0))
        self._address = address
        self._transport: asyncio.Transport | None = None
        self._receiver: Inbox | ReplyParser = Inbox()
        self._waiting: dict[int, asyncio.Future[bool]] = {}
        self._slots = anyio.Semaphore(MAX_IN_FLIGHT, fast_acquire=True)
        self._writable = anyio.Event()
        self._writable.set()
        self._closed = anyio.Event()
        self._failure: NbdError | None = None
        self._last_cookie = 0
        self._queued = 0
        self._silence_s = silence_s
        self._silence = Silence(silence_s, self._taken_bytes, self._was_silent)

    @property
    def in_flight(self) -> int:
        """How many requests are in flight."""
        return len(self._waiting)

    async def connect(self) -> None:
        """Reach the server.

        Raises:
            NbdConnectionError: no server listens there, or access is denied.
        """
        loop = asyncio.get_running_loop()
        try:
            if isinstance(self._address, UnixAddress):
                await loop.create_unix_connection(lambda: self, str(self._address.path))
            else:
                host, port = self._address.host, self._address.port
                await loop.create_connection(lambda: self, host, port)
        except TimeoutError:
            raise
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise NbdConnectionError(
                f"NBD server {self._address} cannot be reached: {why}",
                hint="Check that it runs, and that this user may connect to it.",
            ) from error

    async def negotiate(self, name: str, contexts: Sequence[str], tls: Tls | None) -> None:
        """Negotiate an export with the server.

        Raises:
            NbdError: see ``handshake``.
        """
        inbox = cast("Inbox", self._receiver)
        try:
            self.export = await self._drive(
                handshake(name, contexts, tls=tls is not None), inbox, tls
            )
            inbox.expect_empty()
        except NbdError as error:
            raise error.at(f"NBD server {self._address}") from error.__cause__
        export = self.export
        self._receiver = ReplyParser(
            export.contexts, self._finished, is_structured=export.is_structured
        )

    async def request(  # noqa: PLR0913 -- a request has all of these
        self,
        command: Command,
        offset: int = 0,
        length: int = 0,
        *,
        flags: int = 0,
        target: memoryview | None = None,
        data: bytes = b"",
    ) -> Request:
        """Send a request and wait for its reply.

        If cancelled, it stops waiting at once, and ``target`` is free; the reply is discarded.

        Raises:
            NbdConnectionError: the connection broke; the server may have done it or not.
            NbdProtocolError: the server broke the protocol.
            NbdRequestError: the server reported a failure.
        """
        await self._slots.acquire()
        try:
            if not self._writable.is_set():
                await self._writable.wait()
            self._check_alive()
        except BaseException:
            self._slots.release()
            raise
        self._last_cookie += 1
        request = Request(command, self._last_cookie, offset, length, target, flags)
        await self._answer(request, data)
        if request.error is not None:
            raise request.error.at(f"NBD server {self._address}")
        return request

    async def aclose(self) -> None:
        """Close the connection within ``CLOSE_TIMEOUT_S``; never raises."""
        transport = self._transport
        if transport is None:
            return
        if self._failure is None and isinstance(self._receiver, ReplyParser):
            transport.write(Request(Command.DISC, 0, 0, 0).header)
        transport.close()
        with anyio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
            await self._closed.wait()
        self._abort()

    async def _drive(self, steps: Steps, inbox: Inbox, tls: Tls | None) -> Export:
        answer = b""
        while True:
            try:
                step = steps.send(answer) if answer else next(steps)
            except StopIteration as end:
                return cast("Export", end.value)
            answer = b""
            if isinstance(step, Send):
                self._write(step.data)
            elif isinstance(step, Receive):
                answer = await inbox.take(step.length)
            else:
                inbox.expect_empty()
                await self._start_tls(cast("Tls", tls))

    async def _start_tls(self, tls: Tls) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._transport = await loop.start_tls(
                cast("asyncio.Transport", self._transport),
                self,
                tls.context,
                server_hostname=tls.server_name,
            )
        except ssl.SSLCertVerificationError as error:
            why = f"its certificate is not valid for {tls.server_name}: {error.verify_message}"
            raise NbdRefusedError(why) from error
        except TimeoutError:
            raise
        except OSError as error:
            raise NbdConnectionError(f"TLS failed: {error.strerror or error}") from error

    async def _answer(self, request: Request, data: bytes) -> None:
        parser = cast("ReplyParser", self._receiver)
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        is_first = not self._waiting
        self._waiting[request.cookie] = answer
        parser.expect(request)
        self._write(request.header + data)
        if is_first:
            self._silence.begin()
        try:
            complete = await answer
        except BaseException:
            parser.abandon(request)
            raise
        if not complete:
            self._check_alive()

    def _finished(self, request: Request) -> None:
        self._wake(request.cookie, complete=True)

    def _wake(self, cookie: int, *, complete: bool) -> None:
        answer = self._waiting.pop(cookie)
        self._slots.release()
        if not self._waiting:
            self._silence.end()
        if not answer.done():
            answer.set_result(complete)

    def _write(self, data: bytes) -> None:
        self._check_alive()
        transport = cast("asyncio.Transport", self._transport)
        before = transport.get_write_buffer_size()
        transport.write(data)
        self._queued += transport.get_write_buffer_size() - before

    def _taken_bytes(self) -> int:
        """Return how many of the queued bytes the server has taken so far."""
        return self._queued - cast("asyncio.Transport", self._transport).get_write_buffer_size()

    def _was_silent(self) -> None:
        why = f"the server was silent for {self._silence_s:g} s"
        self._fail(self._located(NbdConnectionError(why, hint=SILENT_HINT)))

    def _check_alive(self) -> None:
        failure = self._failure
        if failure is not None:
            # Each waiting task gets its own error, because a traceback belongs to one task.
            raise type(failure)(failure.message, hint=failure.hint)

    def _fail(self, failure: NbdError) -> None:
        """Break the connection, once, and wake all waiting tasks."""
        if self._failure is not None:
            return
        self._failure = failure
        self._silence.stop()
        if isinstance(self._receiver, Inbox):
            self._receiver.fail(failure)
        for cookie in list(self._waiting):
            self._wake(cookie, complete=False)
        self._writable.set()
        self._abort()

    def _abort(self) -> None:
        # A closed TLS transport accepts no abort.
        if self._transport is not None and not self._closed.is_set():
            self._transport.abort()

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 -- asyncio's signature
        # Under TLS, more bytes can arrive after a failure; they are discarded.
        return self._receiver.buffer() if self._failure is None else Inbox().buffer()

    def buffer_updated(self, nbytes: int) -> None:
        if self._failure is not None:
            return
        self._silence.heard()
        try:
            self._receiver.filled(nbytes)
        except NbdError as error:
            self._fail(error if isinstance(self._receiver, Inbox) else self._located(error))

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed.set()
        why = f"the connection broke: {exc}" if exc else "the server closed the connection"
        error: NbdError = NbdConnectionError(why)
        self._fail(error if isinstance(self._receiver, Inbox) else self._located(error))

    def pause_writing(self) -> None:
        self._writable = anyio.Event()

    def resume_writing(self) -> None:
        self._writable.set()

    def _located(self, error: NbdError) -> NbdError:
        return error.at(f"NBD server {self._address}")

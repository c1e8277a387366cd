"""Parses the replies of an NBD server, without any input or output.

The connection gets a ``buffer`` to receive into, and reports how much of it was ``filled``. The
data of a read goes straight from the kernel into the reader's memory::

    simple reply       magic error cookie [data]                16 bytes, then all data
    structured reply   magic flags type cookie length [payload] 20 bytes, then one chunk; again,
                                                                until one is flagged DONE
      OFFSET_DATA        offset data      |  a read may come in any number of these,
      OFFSET_HOLE        offset length    |  in any order, but never a byte of it twice
      BLOCK_STATUS       context (length flags)...   one for each meta context
      ERROR...           errno message [offset]      the request failed; DONE comes later

Replies come in any order; the cookie identifies the request. Whatever a server sends, no byte is
written outside the target, memory is bounded, and nonsense raises ``NbdProtocolError``.

Specification: "Transmission phase", "Structured reply types".
"""

import struct
from collections.abc import Callable, Collection
from functools import partial
from typing import Final

from virtbackup_async.errors import NbdProtocolError
from virtbackup_async.nbd.protocol.constants import (
    MAX_STATUS_BYTES,
    MAX_STRING_BYTES,
    REPLY_FLAG_DONE,
    REPLY_IS_ERROR,
    SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC,
    Command,
    ReplyType,
)
from virtbackup_async.nbd.protocol.export import printable_message
from virtbackup_async.nbd.protocol.request import Request

_SIMPLE: Final = struct.Struct(">IIQ")
_CHUNK: Final = struct.Struct(">IHHQI")
_OFFSET: Final = struct.Struct(">Q")
_HOLE: Final = struct.Struct(">QI")
_ERROR: Final = struct.Struct(">IH")
_DESCRIPTOR: Final = struct.Struct(">II")
_CONTEXT_BYTES: Final = 4
_MAX_ERROR_BYTES: Final = _ERROR.size + MAX_STRING_BYTES + _OFFSET.size
_SINK_BYTES: Final = 64 * 1024

_Next = Callable[[], None]


class ReplyParser:
    """Parses the received bytes, and reports which requests are done.

    Args:
        contexts: the numbers of the meta contexts that each block status must contain.
        is_structured: whether structured replies were negotiated.
        finished: called with each request whose reply is complete.
    """

    def __init__(
        self,
        contexts: Collection[int],
        finished: Callable[[Request], None],
        *,
        is_structured: bool,
    ) -> None:
        self._contexts = frozenset(contexts)
        self._finished = finished
        self._is_structured = is_structured
        self._requests: dict[int, Request] = {}
        self._header = memoryview(bytearray(_CHUNK.size))
        self._sink = memoryview(bytearray(_SINK_BYTES))
        self._view = self._header
        self._next: _Next = self._begin
        self._receiving: Request | None = None
        self._begin()

    @property
    def requests(self) -> Collection[Request]:
        """The requests whose replies are not complete."""
        return self._requests.values()

    def expect(self, request: Request) -> None:
        """Expect the reply to a request that is about to be sent."""
        self._requests[request.cookie] = request

    def abandon(self, request: Request) -> None:
        """Forget a request's target: nothing is written to it from now on."""
        request.target = None
        if self._receiving is request:
            self._discard(len(self._view), self._next)

    def buffer(self) -> memoryview:
        """Return the buffer to receive into; never empty."""
        return self._view

    def filled(self, count: int) -> None:
        """Record that ``count`` bytes were received into the buffer.

        Raises:
            NbdProtocolError: they make no sense; the connection is unusable.
        """
        self._view = self._view[count:]
        while not self._view:
            self._next()

    def _receive(self, view: memoryview, then: _Next) -> None:
        self._view, self._next = view, then

    def _begin(self) -> None:
        self._receiving = None
        self._receive(self._header[: _SIMPLE.size], self._on_header)

    def _on_header(self) -> None:
        magic, error, cookie = _SIMPLE.unpack_from(self._header)
        if magic == STRUCTURED_REPLY_MAGIC and self._is_structured:
            self._receive(self._header[_SIMPLE.size :], self._on_chunk)
        elif magic == SIMPLE_REPLY_MAGIC:
            self._on_simple(self._request_of(cookie), error)
        else:
            raise NbdProtocolError(f"the server began a reply with {magic:#010x}")

    def _on_simple(self, request: Request, error: int) -> None:
        if error:
            request.fail(error, "")
            self._finish(request)
        elif request.command is Command.READ and not self._is_structured:
            request.cover(request.offset, request.length)
            self._receive_data(request, request.offset, request.length, REPLY_FLAG_DONE)
        elif request.command in {Command.READ, Command.BLOCK_STATUS}:
            raise NbdProtocolError("the server sent a simple reply in place of a structured one")
        else:
            self._finish(request)

    def _on_chunk(self) -> None:
        _, flags, kind, cookie, length = _CHUNK.unpack(self._header)
        request = self._request_of(cookie)
        if kind & REPLY_IS_ERROR:
            self._check(_ERROR.size <= length <= _MAX_ERROR_BYTES, kind, length)
            self._receive_payload(length, partial(self._on_error, request, flags))
        elif kind == ReplyType.NONE:
            self._check(length == 0 and bool(flags & REPLY_FLAG_DONE), kind, length)
            self._end_chunk(request, flags)
        elif kind == ReplyType.OFFSET_DATA and request.command is Command.READ:
            self._check(length > _OFFSET.size, kind, length)
            data_length = length - _OFFSET.size
            self._receive_payload(_OFFSET.size, partial(self._on_data, request, flags, data_length))
        elif kind == ReplyType.OFFSET_HOLE and request.command is Command.READ:
            self._check(length == _HOLE.size, kind, length)
            self._receive_payload(length, partial(self._on_hole, request, flags))
        elif kind == ReplyType.BLOCK_STATUS and request.command is Command.BLOCK_STATUS:
            rest = length - _CONTEXT_BYTES
            sound = 0 < rest <= MAX_STATUS_BYTES and rest % _DESCRIPTOR.size == 0
            self._check(sound, kind, length)
            self._receive_payload(length, partial(self._on_status, request, flags))
        else:
            raise NbdProtocolError(f"the server answers {request.command.name} by type {kind}")

    @staticmethod
    def _check(sound: bool, kind: int, length: int) -> None:  # noqa: FBT001 -- an assertion
        if not sound:
            raise NbdProtocolError(f"the server sent a chunk of type {kind} and {length} bytes")

    def _request_of(self, cookie: int) -> Request:
        request = self._requests.get(cookie)
        if request is None:
            raise NbdProtocolError("the server replies to a request that was not sent")
        return request

    def _receive_payload(self, length: int, then: Callable[[memoryview], None]) -> None:
        """Receive a payload other than data; only that of a block status can be large."""
        payload = memoryview(bytearray(length))
        self._receive(payload, lambda: then(payload))

    def _on_data(self, request: Request, flags: int, length: int, payload: memoryview) -> None:
        (offset,) = _OFFSET.unpack(payload)
        request.cover(offset, length)
        self._receive_data(request, offset, length, flags)

    def _receive_data(self, request: Request, offset: int, length: int, flags: int) -> None:
        then = partial(self._end_chunk, request, flags)
        part = request.part(offset, length)
        if part is None:
            self._discard(length, then)
        else:
            self._receiving = request
            self._receive(part, then)

    def _discard(self, length: int, then: _Next) -> None:
        """Receive and drop data that no task waits for any more."""
        self._receiving = None
        now = min(length, _SINK_BYTES)
        rest = length - now
        self._receive(self._sink[:now], partial(self._discard, rest, then) if rest else then)

    def _on_hole(self, request: Request, flags: int, payload: memoryview) -> None:
        offset, length = _HOLE.unpack(payload)
        request.cover(offset, length)
        part = request.part(offset, length)
        if part is not None:
            part[:] = bytes(length)
        self._end_chunk(request, flags)

    def _on_status(self, request: Request, flags: int, payload: memoryview) -> None:
        context = int.from_bytes(payload[:_CONTEXT_BYTES], "big")
        descriptors = tuple(_DESCRIPTOR.iter_unpack(payload[_CONTEXT_BYTES:]))
        if context not in self._contexts or context in request.statuses:
            raise NbdProtocolError(f"the server reports meta context {context} out of turn")
        if not all(length for length, _ in descriptors):
            raise NbdProtocolError("the server reports the status of no bytes")
        request.statuses[context] = descriptors
        self._end_chunk(request, flags)

    def _on_error(self, request: Request, flags: int, payload: memoryview) -> None:
        errno, said_length = _ERROR.unpack_from(payload)
        said = bytes(payload[_ERROR.size : _ERROR.size + said_length])
        if errno == 0 or len(said) != said_length:
            raise NbdProtocolError("the server reports an error without a number")
        request.fail(errno, printable_message(said))
        self._end_chunk(request, flags)

    def _end_chunk(self, request: Request, flags: int) -> None:
        if flags & REPLY_FLAG_DONE:
            self._finish(request)
        else:
            self._begin()

    def _finish(self, request: Request) -> None:
        if request.error is None:
            self._check_complete(request)
        del self._requests[request.cookie]
        self._begin()
        self._finished(request)

    def _check_complete(self, request: Request) -> None:
        if request.command is Command.READ and not request.is_covered:
            raise NbdProtocolError("the server ended a read before all its data arrived")
        if request.command is Command.BLOCK_STATUS and request.statuses.keys() != self._contexts:
            raise NbdProtocolError("the server does not report all meta contexts")

"""The negotiation with an NBD server, without any input or output.

``handshake`` is a generator: it yields the next step, and receives the bytes that were read. So a
connection, a test and a fuzzer drive it alike::

    server                                   client
    NBDMAGIC IHAVEOPT flags            -->
                                       <--   flags
                                       <--   STARTTLS, then TLS           if requested
                                       <--   STRUCTURED_REPLY
                                       <--   SET_META_CONTEXT             if any
    META_CONTEXT number name ... ACK   -->
                                       <--   GO export
    INFO size flags, INFO sizes, ACK   -->                                transmission begins

Specification: "Newstyle negotiation", "Option types", "Option reply types".
"""

import struct
from collections.abc import Generator, Iterator, Sequence
from typing import Final

from msgspec.structs import replace

from virtbackup_async.errors import NbdConnectionError, NbdProtocolError, NbdRefusedError
from virtbackup_async.nbd.protocol.constants import (
    FLAG_FIXED_NEWSTYLE,
    FLAG_NO_ZEROES,
    MAX_OPTION_REPLIES,
    MAX_OPTION_REPLY_BYTES,
    MAX_REQUEST_BYTES,
    MAX_STRING_BYTES,
    OPTION_MAGIC,
    OPTION_REPLY_IS_ERROR,
    OPTION_REPLY_MAGIC,
    SERVER_MAGIC,
    ExportFlag,
    Info,
    Option,
    OptionReply,
)
from virtbackup_async.nbd.protocol.export import BlockSizes, Export, printable_message
from virtbackup_async.nbd.protocol.steps import Negotiation, Receive, Send, StartTls, Step

_GREETING: Final = struct.Struct(">QQH")
_CLIENT_FLAGS: Final = struct.Struct(">I")
_OPTION: Final = struct.Struct(">QII")
_OPTION_REPLY: Final = struct.Struct(">QIII")
_EXPORT: Final = struct.Struct(">HQH")
_CONTEXT_BYTES: Final = 4
_BLOCK_SIZES: Final = struct.Struct(">HIII")
_ADDRESS_HINT: Final = "Check the address: another program listens there."
_DECLINED_HINTS: Final[dict[int, str]] = {
    OptionReply.ERR_TLS_REQD: "Give the certificates.",
    OptionReply.ERR_UNKNOWN: "Check the export's name: the server has none of that name.",
}
_MAX_SIZE_BYTES: Final = (1 << 63) - 1
_MAX_MINIMUM_BLOCK: Final = 64 * 1024


Steps = Negotiation[Export]
_Replies = Generator[Step, bytes, list[tuple[int, bytes]]]


def handshake(name: str, contexts: Sequence[str], *, tls: bool) -> Steps:
    """Negotiate an export.

    Args:
        name: the export's name; empty for the server's default export.
        contexts: the requested meta contexts; the result has the granted ones.
        tls: whether the connection must be encrypted.

    Raises:
        NbdRefusedError: there is no such export, or only one side requires TLS.
        NbdProtocolError: the server does not speak fixed newstyle NBD, or breaks it.
        NbdConnectionError: the server is shutting down.
    """
    yield from _greet()
    if tls:
        yield from _start_tls()
    is_structured = yield from _ask_structured()
    granted: dict[int, str] = {}
    if is_structured and contexts:
        granted = yield from _ask_contexts(name, contexts)
    export = yield from _go(name)
    return replace(export, contexts=granted, is_structured=is_structured)


def _greet() -> Generator[Step, bytes, None]:
    magic, option_magic, flags = _GREETING.unpack((yield Receive(_GREETING.size)))
    if magic != SERVER_MAGIC or option_magic != OPTION_MAGIC:
        raise NbdProtocolError("this is no NBD server, or an oldstyle one", hint=_ADDRESS_HINT)
    if not flags & FLAG_FIXED_NEWSTYLE:
        raise NbdProtocolError("the server does not speak fixed newstyle NBD")
    yield Send(_CLIENT_FLAGS.pack(flags & (FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES)))


def _start_tls() -> Generator[Step, bytes, None]:
    try:
        yield from _ask(Option.STARTTLS)
    except _DeclinedError as declined:
        raise NbdRefusedError(
            f"the server offers no TLS ({declined.message})",
            hint="Nothing was sent in the clear; set TLS up at the server.",
        ) from declined
    yield StartTls()


def _ask_structured() -> Generator[Step, bytes, bool]:
    try:
        yield from _ask(Option.STRUCTURED_REPLY)
    except _DeclinedError as declined:
        if declined.kind not in {OptionReply.ERR_UNSUP, OptionReply.ERR_POLICY}:
            raise
        return False
    return True


def _ask_contexts(name: str, contexts: Sequence[str]) -> Generator[Step, bytes, dict[int, str]]:
    data = _string(name) + struct.pack(">I", len(contexts)) + b"".join(map(_string, contexts))
    try:
        replies = yield from _ask(Option.SET_META_CONTEXT, data)
    except _DeclinedError as declined:
        if declined.kind != OptionReply.ERR_UNSUP:
            raise
        return {}
    granted: dict[int, str] = {}
    for payload in _of_kind(replies, OptionReply.META_CONTEXT):
        number, context = _context(payload)
        if context not in contexts or number in granted or context in granted.values():
            raise NbdProtocolError(
                f"the server grants a meta context that was not requested: {context}"
            )
        granted[number] = context
    return granted


def _context(payload: bytes) -> tuple[int, str]:
    number, context = payload[:_CONTEXT_BYTES], payload[_CONTEXT_BYTES:]
    if not 0 < len(context) <= MAX_STRING_BYTES:
        raise NbdProtocolError("the name of a meta context has a wrong length")
    return int.from_bytes(number, "big"), context.decode(errors="replace")


def _go(name: str) -> Generator[Step, bytes, Export]:
    data = _string(name) + struct.pack(">HH", 1, Info.BLOCK_SIZE)
    replies = yield from _ask(Option.GO, data)
    export: Export | None = None
    sizes = BlockSizes()
    for payload in _of_kind(replies, OptionReply.INFO):
        kind = int.from_bytes(payload[:2], "big")
        if kind == Info.EXPORT and len(payload) == _EXPORT.size:
            _, size_bytes, flags = _EXPORT.unpack(payload)
            export = Export(name, size_bytes, ExportFlag(flags))
        elif kind == Info.BLOCK_SIZE and len(payload) == _BLOCK_SIZES.size:
            sizes = _checked(BlockSizes(*_BLOCK_SIZES.unpack(payload)[1:]))
        elif kind in {Info.EXPORT, Info.BLOCK_SIZE}:
            raise NbdProtocolError("the description of the export has a wrong length")
    if export is None or export.size_bytes > _MAX_SIZE_BYTES:
        raise NbdProtocolError("the server does not report a possible size of the export")
    return replace(export, block_sizes=sizes)


def _checked(sizes: BlockSizes) -> BlockSizes:
    """Limit sizes to this client's own; refuse those that no request could satisfy."""
    least = sizes.minimum
    if not 0 < least <= _MAX_MINIMUM_BLOCK or least & (least - 1) or sizes.maximum < least:
        raise NbdProtocolError(f"the server demands impossible block sizes: {sizes}")
    largest = min(sizes.maximum, MAX_REQUEST_BYTES)
    return replace(sizes, maximum=largest - largest % least)


class _DeclinedError(NbdRefusedError):
    """The server answered an option with an error."""

    def __init__(self, option: Option, kind: int, text: str) -> None:
        names = {reply.value: reply.name.removeprefix("ERR_").lower() for reply in OptionReply}
        why = text or names.get(kind, f"error {kind - OPTION_REPLY_IS_ERROR}")
        hint = _DECLINED_HINTS.get(kind)
        super().__init__(f"the server declines {option.name.lower()}: {why}", hint=hint)
        self.kind = kind


def _ask(option: Option, data: bytes = b"") -> _Replies:
    """Send an option; return the replies before the final one."""
    yield Send(_OPTION.pack(OPTION_MAGIC, option, len(data)) + data)
    replies: list[tuple[int, bytes]] = []
    while len(replies) <= MAX_OPTION_REPLIES:
        header = _OPTION_REPLY.unpack((yield Receive(_OPTION_REPLY.size)))
        magic, answered, kind, length = header
        if magic != OPTION_REPLY_MAGIC or answered != option or length > MAX_OPTION_REPLY_BYTES:
            raise NbdProtocolError(f"the server answers {option.name.lower()} wrongly")
        payload = (yield Receive(length)) if length else b""
        if kind == OptionReply.ACK:
            return replies
        if kind == OptionReply.ERR_SHUTDOWN:
            raise NbdConnectionError("the server is shutting down")
        if kind & OPTION_REPLY_IS_ERROR:
            raise _DeclinedError(option, kind, printable_message(payload))
        replies.append((kind, payload))
    raise NbdProtocolError(f"the server answers {option.name.lower()} without end")


def _of_kind(replies: list[tuple[int, bytes]], kind: OptionReply) -> Iterator[bytes]:
    return (payload for found, payload in replies if found == kind)


def _string(text: str) -> bytes:
    data = text.encode()
    if len(data) > MAX_STRING_BYTES:
        raise NbdRefusedError(f"a name of {len(data)} bytes is too long for NBD")
    return struct.pack(">I", len(data)) + data

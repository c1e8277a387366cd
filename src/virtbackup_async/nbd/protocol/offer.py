"""The server's side of the negotiation, without any input or output; ``handshake`` is the client's.

The client chooses the options and their order; the server answers each until one of them begins the
transmission phase, or ends the connection::

    server                                   client
    NBDMAGIC IHAVEOPT flags            -->
                                       <--   flags
                                       <--   any of STARTTLS, LIST, INFO, STRUCTURED_REPLY,
    SERVER, INFO, META_CONTEXT ... ACK -->   LIST_META_CONTEXT, SET_META_CONTEXT, in any order
                                       <--   GO or EXPORT_NAME
    INFO ... ACK                       -->                                transmission begins

Whatever a client sends, memory and the number of its options are bounded. Before TLS, a server that
requires it says nothing about its exports.

Specification: "Newstyle negotiation", "Option types", "Option reply types".
"""

import struct
from collections.abc import Generator, Mapping
from typing import Final, NamedTuple

from msgspec import Struct

from virtbackup_async.errors import NbdProtocolError
from virtbackup_async.nbd.protocol.constants import (
    BASE_ALLOCATION,
    BASE_PREFIX,
    FLAG_FIXED_NEWSTYLE,
    FLAG_NO_ZEROES,
    MAX_OPTION_BYTES,
    MAX_OPTIONS,
    MAX_STRING_BYTES,
    OPTION_MAGIC,
    OPTION_REPLY_MAGIC,
    SERVER_MAGIC,
    ExportFlag,
    Info,
    Option,
    OptionReply,
)
from virtbackup_async.nbd.protocol.export import BlockSizes
from virtbackup_async.nbd.protocol.steps import Negotiation, Receive, Send, StartTls, Step

_GREETING: Final = struct.Struct(">QQH")
_CLIENT_FLAGS: Final = struct.Struct(">I")
_OPTION: Final = struct.Struct(">QII")
_OPTION_REPLY: Final = struct.Struct(">QIII")
_EXPORT: Final = struct.Struct(">HQH")
_OLD_EXPORT: Final = struct.Struct(">QH")
_BLOCK_SIZES: Final = struct.Struct(">HIII")
_NUMBER: Final = struct.Struct(">I")
_SHORT: Final = struct.Struct(">H")
_OLD_PADDING: Final = bytes(124)

ALLOCATION_ID: Final = 1
"""The number of ``base:allocation`` on every connection."""
_KNOWN_FLAGS: Final = FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES
_BEFORE_TLS: Final = frozenset({Option.STARTTLS, Option.ABORT})
_LISTED: Final = frozenset({b"", BASE_PREFIX.encode(), BASE_ALLOCATION.encode()})


class Offered(Struct, frozen=True):
    """An export, as the server describes it.

    Attributes:
        size_bytes: its length.
        flags: its abilities.
        description: a line for people.
        block_sizes: the alignment and the limits of requests.
    """

    size_bytes: int
    flags: ExportFlag
    description: str = ""
    block_sizes: BlockSizes = BlockSizes()


class Agreed(Struct, frozen=True):
    """The result of a negotiation.

    Attributes:
        name: the export's, as the server has it.
        is_structured: whether replies are structured.
        reports_allocation: whether the client asked for ``base:allocation``.
    """

    name: str
    is_structured: bool
    reports_allocation: bool


Offer = Negotiation[Agreed | None]
_Reply = tuple[OptionReply, bytes]


class _Talk(Struct):
    """What the client has asked for so far."""

    is_encrypted: bool = False
    is_structured: bool = False
    contexts_of: str | None = None


class _Asked(NamedTuple):
    """The data of ``GO`` and ``INFO``: an export's name, and the kinds of information."""

    name: str
    kinds: frozenset[int]


class _InvalidError(Exception):
    """An option's data cannot be understood; the connection is good."""


def offer(exports: Mapping[str, Offered], *, tls: bool) -> Offer:
    """Negotiate with a client; None if it ends the negotiation itself.

    Args:
        exports: by name. If there is only one, it is the default export as well.
        tls: whether the connection must be encrypted.

    Raises:
        NbdProtocolError: the client breaks the protocol, or asks without end.
    """
    flags = FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES
    yield Send(_GREETING.pack(SERVER_MAGIC, OPTION_MAGIC, flags))
    (wanted,) = _CLIENT_FLAGS.unpack((yield Receive(_CLIENT_FLAGS.size)))
    if wanted & ~_KNOWN_FLAGS:
        raise NbdProtocolError(f"the client demands unknown flags: {wanted:#x}")
    talk = _Talk(is_encrypted=not tls)
    for _ in range(MAX_OPTIONS):
        option, data = yield from _receive_option()
        if option == Option.EXPORT_NAME:
            padding = b"" if wanted & FLAG_NO_ZEROES else _OLD_PADDING
            return (yield from _take_by_name(exports, talk, data, padding))
        replies = _answer(exports, talk, option, data, tls=tls)
        yield Send(b"".join(_encoded(option, *reply) for reply in replies))
        last = replies[-1][0]
        if option == Option.ABORT:
            return None
        if option == Option.STARTTLS and last == OptionReply.ACK:
            yield StartTls()
            talk = _Talk(is_encrypted=True)
        if option == Option.GO and last == OptionReply.ACK:
            return _agreed(talk, _name_of(exports, _asked(data).name))
    raise NbdProtocolError("the client negotiates without end")


def _receive_option() -> Generator[Step, bytes, tuple[int, bytes]]:
    magic, option, length = _OPTION.unpack((yield Receive(_OPTION.size)))
    if magic != OPTION_MAGIC:
        raise NbdProtocolError(f"the client began an option with {magic:#018x}")
    if length > MAX_OPTION_BYTES:
        raise NbdProtocolError(f"the client sent an option of {length} bytes")
    return option, ((yield Receive(length)) if length else b"")


def _take_by_name(
    exports: Mapping[str, Offered], talk: _Talk, data: bytes, padding: bytes
) -> Generator[Step, bytes, Agreed]:
    """Begin the transmission as old clients ask for it: a refusal can only hang up."""
    name = _name_of(exports, data.decode(errors="replace"))
    if not talk.is_encrypted or name not in exports:
        raise NbdProtocolError(
            "the client asked for an export without TLS, or for one that does not exist"
        )
    found = exports[name]
    yield Send(_OLD_EXPORT.pack(found.size_bytes, found.flags) + padding)
    return _agreed(talk, name)


def _agreed(talk: _Talk, name: str) -> Agreed:
    return Agreed(name, talk.is_structured, talk.is_structured and talk.contexts_of == name)


def _answer(
    exports: Mapping[str, Offered], talk: _Talk, option: int, data: bytes, *, tls: bool
) -> list[_Reply]:
    if not talk.is_encrypted and option not in _BEFORE_TLS:
        return [(OptionReply.ERR_TLS_REQD, b"this server requires TLS")]
    try:
        if option in {Option.INFO, Option.GO}:
            return _describe(exports, _asked(data))
        if option in {Option.LIST_META_CONTEXT, Option.SET_META_CONTEXT}:
            return _contexts(exports, talk, option, data)
        return _answer_plain(exports, talk, option, data, tls=tls)
    except _InvalidError as error:
        return [(OptionReply.ERR_INVALID, str(error).encode())]


def _answer_plain(
    exports: Mapping[str, Offered], talk: _Talk, option: int, data: bytes, *, tls: bool
) -> list[_Reply]:
    """Answer an option that has no data."""
    if option == Option.ABORT:
        return [(OptionReply.ACK, b"")]
    if option == Option.STARTTLS:
        return [_start_tls(talk, data, tls=tls)]
    if option == Option.LIST:
        return _list(exports, data)
    if option == Option.STRUCTURED_REPLY:
        _expect_none(data)
        talk.is_structured = True
        return [(OptionReply.ACK, b"")]
    return [(OptionReply.ERR_UNSUP, b"")]


def _start_tls(talk: _Talk, data: bytes, *, tls: bool) -> _Reply:
    _expect_none(data)
    if not tls:
        return OptionReply.ERR_POLICY, b"this server has no certificate"
    if talk.is_encrypted:
        raise _InvalidError("the connection is encrypted already")
    return OptionReply.ACK, b""


def _list(exports: Mapping[str, Offered], data: bytes) -> list[_Reply]:
    _expect_none(data)
    listed = [
        (OptionReply.SERVER, _string(name) + found.description.encode())
        for name, found in exports.items()
    ]
    return [*listed, (OptionReply.ACK, b"")]


def _describe(exports: Mapping[str, Offered], asked: _Asked) -> list[_Reply]:
    name = _name_of(exports, asked.name)
    found = exports.get(name)
    if found is None:
        return [(OptionReply.ERR_UNKNOWN, b"there is no such export")]
    sizes = found.block_sizes
    facts = [
        _EXPORT.pack(Info.EXPORT, found.size_bytes, found.flags),
        _BLOCK_SIZES.pack(Info.BLOCK_SIZE, sizes.minimum, sizes.preferred, sizes.maximum),
    ]
    if Info.NAME in asked.kinds:
        facts.append(_SHORT.pack(Info.NAME) + name.encode())
    if Info.DESCRIPTION in asked.kinds and found.description:
        facts.append(_SHORT.pack(Info.DESCRIPTION) + found.description.encode())
    return [*((OptionReply.INFO, fact) for fact in facts), (OptionReply.ACK, b"")]


def _contexts(
    exports: Mapping[str, Offered], talk: _Talk, option: int, data: bytes
) -> list[_Reply]:
    rest = memoryview(data)
    named, rest = _taken_string(rest)
    count, rest = _taken_number(rest)
    queries: list[bytes] = []
    for _ in range(count):
        query, rest = _taken_string(rest)
        queries.append(query)
    if rest:
        raise _InvalidError("the list of contexts has a wrong length")
    if not talk.is_structured:
        raise _InvalidError("contexts need structured replies")
    name = _name_of(exports, named.decode(errors="replace"))
    if name not in exports:
        return [(OptionReply.ERR_UNKNOWN, b"there is no such export")]
    if option == Option.SET_META_CONTEXT:
        has_it = BASE_ALLOCATION.encode() in queries
        talk.contexts_of = name if has_it else None
    else:
        has_it = not queries or not _LISTED.isdisjoint(queries)
    granted = _NUMBER.pack(ALLOCATION_ID) + BASE_ALLOCATION.encode()
    found = [(OptionReply.META_CONTEXT, granted)] if has_it else []
    return [*found, (OptionReply.ACK, b"")]


def _asked(data: bytes) -> _Asked:
    name, rest = _taken_string(memoryview(data))
    if len(rest) < _SHORT.size:
        raise _InvalidError("the request for an export is cut off")
    (count,) = _SHORT.unpack_from(rest)
    kinds = rest[_SHORT.size :]
    if len(kinds) != count * _SHORT.size:
        raise _InvalidError("the request for an export has a wrong length")
    return _Asked(name.decode(errors="replace"), frozenset(k for (k,) in _SHORT.iter_unpack(kinds)))


def _name_of(exports: Mapping[str, Offered], asked: str) -> str:
    """Return the export's name; the empty name is the only export, if there is only one."""
    if not asked and asked not in exports and len(exports) == 1:
        return next(iter(exports))
    return asked


def _expect_none(data: bytes) -> None:
    if data:
        raise _InvalidError("the option takes no data")


def _taken_number(data: memoryview) -> tuple[int, memoryview]:
    if len(data) < _NUMBER.size:
        raise _InvalidError("the option is cut off")
    return _NUMBER.unpack_from(data)[0], data[_NUMBER.size :]


def _taken_string(data: memoryview) -> tuple[bytes, memoryview]:
    length, rest = _taken_number(data)
    if length > min(len(rest), MAX_STRING_BYTES):
        raise _InvalidError("a name is cut off, or too long")
    return bytes(rest[:length]), rest[length:]


def _string(text: str) -> bytes:
    data = text.encode()
    return _NUMBER.pack(len(data)) + data


def _encoded(option: int, kind: OptionReply, data: bytes) -> bytes:
    return _OPTION_REPLY.pack(OPTION_REPLY_MAGIC, option, kind, len(data)) + data

"""The server's replies, as bytes; ``replies`` reads them.

Specification: "Structured reply types", "Simple reply message".
"""

import struct
from collections.abc import Iterable
from typing import Final

from virtbackup_async.nbd.protocol.constants import (
    MAX_STRING_BYTES,
    REPLY_FLAG_DONE,
    SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC,
    ReplyType,
)

_SIMPLE: Final = struct.Struct(">IIQ")
_CHUNK: Final = struct.Struct(">IHHQI")
_OFFSET: Final = struct.Struct(">Q")
_HOLE: Final = struct.Struct(">QI")
_ERROR: Final = struct.Struct(">IH")
_NUMBER: Final = struct.Struct(">I")
_DESCRIPTOR: Final = struct.Struct(">II")


def simple(cookie: int, errno: int = 0) -> bytes:
    """Return a simple reply; the data of a read follows it."""
    return _SIMPLE.pack(SIMPLE_REPLY_MAGIC, errno, cookie)


def done(cookie: int) -> bytes:
    """Return the chunk that ends a structured reply without a word."""
    return _chunk(cookie, ReplyType.NONE, b"", is_last=True)


def data_head(cookie: int, offset: int, length: int, *, is_last: bool) -> bytes:
    """Return the head of a chunk of data; the data follows it."""
    flags = REPLY_FLAG_DONE if is_last else 0
    size = _OFFSET.size + length
    head = _CHUNK.pack(STRUCTURED_REPLY_MAGIC, flags, ReplyType.OFFSET_DATA, cookie, size)
    return head + _OFFSET.pack(offset)


def hole(cookie: int, offset: int, length: int, *, is_last: bool) -> bytes:
    """Return a chunk that stands for ``length`` zeros."""
    return _chunk(cookie, ReplyType.OFFSET_HOLE, _HOLE.pack(offset, length), is_last=is_last)


def status(cookie: int, context: int, runs: Iterable[tuple[int, int]]) -> bytes:
    """Return a block status with one context: lengths, each with its flags."""
    payload = _NUMBER.pack(context) + b"".join(_DESCRIPTOR.pack(*run) for run in runs)
    return _chunk(cookie, ReplyType.BLOCK_STATUS, payload, is_last=True)


def error(cookie: int, errno: int, message: str) -> bytes:
    """Return the chunk that ends a structured reply with an error."""
    text = message.encode()[:MAX_STRING_BYTES]
    payload = _ERROR.pack(errno, len(text)) + text
    return _chunk(cookie, ReplyType.ERROR, payload, is_last=True)


def _chunk(cookie: int, kind: ReplyType, payload: bytes, *, is_last: bool) -> bytes:
    flags = REPLY_FLAG_DONE if is_last else 0
    return _CHUNK.pack(STRUCTURED_REPLY_MAGIC, flags, kind, cookie, len(payload)) + payload

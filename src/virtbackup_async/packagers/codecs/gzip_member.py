"""gzip members that say how long they are, so that they can be found without decompressing.

::

    1f 8b 08 04   gzip, deflate, with an extra field          RFC 1952
    00000000 00 ff   no time, no flags, unknown system
    0c 00  56 42  08 00   extra field of 12 bytes: "VB", 8 bytes
    length of the whole member, length of what is in it       4 bytes each, little-endian
    deflate data
    CRC-32, length of what is in it                           4 bytes each

Every tool passes over the extra field. ``compressor.py`` writes such members, ``members.py`` finds
them. libdeflate does the work: it wants whole buffers, and that is what segments are.
"""

import struct
from typing import Final

import deflate

from virtbackup_async.packagers.codecs.compressible import is_dense

_HEAD: Final = struct.Struct("<10sH2sHII")
_FIXED: Final = bytes.fromhex("1f8b0804 00000000 00ff")
_TAIL: Final = struct.Struct("<II")
_EXTRA: Final = (12, b"VB", 8)
HEAD_BYTES: Final = _HEAD.size
# libdeflate's levels for 1 to 9: the cheapest that pack as well as zlib's, 3 % more at most;
# docs/explanation/performance.md has the figures.
_LIBDEFLATE_LEVELS: Final = (1, 1, 1, 4, 5, 5, 6, 7, 8)
_STORED: Final = 0


def compress_gzip(level: int, data: memoryview) -> bytes:
    """One member that holds ``data``, packed as tightly as zlib does at ``level``, 1 to 9."""
    packed = deflate.deflate_compress(
        data, _STORED if is_dense(data) else _LIBDEFLATE_LEVELS[level - 1]
    )
    length_bytes = _HEAD.size + len(packed) + _TAIL.size
    head = _HEAD.pack(_FIXED, *_EXTRA, length_bytes, len(data))
    return b"".join((head, packed, _TAIL.pack(deflate.crc32(data), len(data))))


def member_lengths(head: bytes) -> tuple[int, int] | None:
    """The lengths of a member and of what is in it; None where it does not say them."""
    if len(head) < _HEAD.size:
        return None
    fixed, extra_bytes, name, field_bytes, length_bytes, plain_bytes = _HEAD.unpack(head)
    if (fixed, extra_bytes, name, field_bytes) != (_FIXED, *_EXTRA):
        return None
    return length_bytes, plain_bytes


def decompress_gzip(member: bytes, plain_bytes: int | None) -> bytearray:
    """What is in a member, which must be ``plain_bytes`` long.

    Raises:
        ValueError: it is damaged.
    """
    if plain_bytes is None or len(member) < _HEAD.size + _TAIL.size:
        raise ValueError("gzip member is too short")
    try:
        packed = memoryview(member)[_HEAD.size : -_TAIL.size]
        data = deflate.deflate_decompress(packed, plain_bytes)
    except deflate.DeflateError as error:
        raise ValueError(str(error).lower()) from error
    if _TAIL.pack(deflate.crc32(data), plain_bytes) != member[-_TAIL.size :]:
        raise ValueError("crc check failed")
    return data

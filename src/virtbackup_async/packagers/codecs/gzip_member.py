"""gzip members with their length in the header, so that they are found without decompression.

::

    1f 8b 08 04   gzip, deflate, with an extra field          RFC 1952
    00000000 00 ff   no time, no flags, unknown system
    0c 00  56 42  08 00   extra field of 12 bytes: "VB", 8 bytes
    length of the whole member, decompressed length           4 bytes each, little-endian
    deflate data
    CRC-32, decompressed length                               4 bytes each

Every tool skips the extra field. ``compressor.py`` writes such members, ``tar/members.py`` finds
them. libdeflate compresses: it needs whole buffers, which segments are.
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
# libdeflate's levels for 1 to 9: the cheapest whose output is at most 3 % larger than zlib's;
# docs/explanation/performance.md has the figures.
_LIBDEFLATE_LEVELS: Final = (1, 1, 1, 4, 5, 5, 6, 7, 8)
_STORED: Final = 0


def compress_gzip(level: int, data: memoryview) -> bytes:
    """Return a member with ``data``, compressed as well as by zlib at ``level``, 1 to 9."""
    packed = deflate.deflate_compress(
        data, _STORED if is_dense(data) else _LIBDEFLATE_LEVELS[level - 1]
    )
    length_bytes = _HEAD.size + len(packed) + _TAIL.size
    head = _HEAD.pack(_FIXED, *_EXTRA, length_bytes, len(data))
    return b"".join((head, packed, _TAIL.pack(deflate.crc32(data), len(data))))


def member_lengths(head: bytes) -> tuple[int, int] | None:
    """Return a member's length and its decompressed length; None if the header lacks them."""
    if len(head) < _HEAD.size:
        return None
    fixed, extra_bytes, name, field_bytes, length_bytes, plain_bytes = _HEAD.unpack(head)
    if (fixed, extra_bytes, name, field_bytes) != (_FIXED, *_EXTRA):
        return None
    return length_bytes, plain_bytes


def decompress_gzip(member: bytes, plain_bytes: int | None) -> bytearray:
    """Return the content of a member, which must be ``plain_bytes`` long.

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

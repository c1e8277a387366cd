"""The tail of a sealed pack: a checksum by which damage is found without any key.

::

    pack     head | blob | blob | ... | tail
    tail     magic, length of all before, CRC-32 of all before, CRC-32 of this        32 bytes

It shows damage, not manipulation: anybody can compute it anew. Pure: bytes in, values out.
"""

import struct
from typing import Final

from zlib_ng import zlib_ng

from virtbackup_async.errors import CorruptError

MAGIC: Final = b"vbk-tail"
_TAIL: Final = struct.Struct("<8sQI8x")
_CHECKSUM: Final = struct.Struct("<I")
TAIL_BYTES: Final = _TAIL.size + _CHECKSUM.size


def checksum(data: bytes | bytearray | memoryview, before: int = 0) -> int:
    """Return the checksum of all bytes up to the end of ``data``, from that of those before it."""
    return zlib_ng.crc32(data, before)


def encode(length_bytes: int, checksum_: int) -> bytes:
    """Return the tail of a pack of that length and checksum."""
    tail = _TAIL.pack(MAGIC, length_bytes, checksum_)
    return tail + _CHECKSUM.pack(checksum(tail))


def decode(tail: bytes, file_bytes: int) -> int:
    """Return the checksum of a pack that is that long, from its last bytes.

    Raises:
        CorruptError: they are damaged, or the pack is cut off.
    """
    if len(tail) != TAIL_BYTES or _CHECKSUM.unpack(tail[_TAIL.size :])[0] != checksum(
        tail[: _TAIL.size]
    ):
        raise CorruptError("it is cut off, or its tail is damaged")
    magic, length_bytes, found = _TAIL.unpack_from(tail)
    if magic != MAGIC or length_bytes != file_bytes - TAIL_BYTES:
        raise CorruptError("it is cut off, or its tail is damaged")
    return int(found)

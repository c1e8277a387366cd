"""An xz stream with uncompressed data, for data that cannot be made smaller.

::

    stream header    fd "7zXZ" 00 | flags 00 01: checked by CRC-32 | CRC-32 of the flags
    block header     length / 4 - 1 | 00 | filter 21: LZMA2 | 01 | dictionary 00 | 000000 | CRC-32
    block            01 or 02 | length - 1, 2 bytes, big-endian | 64 KiB at most    again and again
                     00 | padding to 4 | CRC-32 of the data
    index, footer    see ``xz_index.py``

liblzma would write the same after it had tried to compress each 64 KiB. Used by ``compressor.py``;
the format is https://tukaani.org/xz/xz-file-format.txt.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Final

_FLAGS: Final = b"\x00\x01"
_STREAM_HEADER: Final = b"\xfd7zXZ\x00" + _FLAGS + zlib.crc32(_FLAGS).to_bytes(4, "little")
_BLOCK_START: Final = bytes.fromhex("02 00 21 01 00 000000")
_BLOCK_HEADER: Final = _BLOCK_START + zlib.crc32(_BLOCK_START).to_bytes(4, "little")
_CHUNK: Final = struct.Struct(">BH")
_CHUNK_BYTES: Final = 64 * 1024
_RESET, _GO_ON = 1, 2
_CHECK_BYTES: Final = 4


def store_xz(data: memoryview) -> bytes:
    """Return a stream with ``data``, uncompressed."""
    body = b"".join(_chunks(data))
    check = zlib.crc32(data).to_bytes(_CHECK_BYTES, "little")
    unpadded_bytes = len(_BLOCK_HEADER) + len(body) + _CHECK_BYTES
    index = _padded(b"\x00" + _number(1) + _number(unpadded_bytes) + _number(len(data)))
    index += zlib.crc32(index).to_bytes(4, "little")
    end = (len(index) // 4 - 1).to_bytes(4, "little") + _FLAGS
    footer = zlib.crc32(end).to_bytes(4, "little") + end + b"YZ"
    return b"".join((_STREAM_HEADER, _BLOCK_HEADER, _padded(body), check, index, footer))


def _chunks(data: memoryview) -> Iterator[bytes | memoryview]:
    for start in range(0, len(data), _CHUNK_BYTES):
        piece = data[start : start + _CHUNK_BYTES]
        yield _CHUNK.pack(_GO_ON if start else _RESET, len(piece) - 1)
        yield piece
    yield b"\x00"


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _number(number: int) -> bytes:
    """Encode a number: seven bits a byte, lowest first; the eighth is a 'more' bit."""
    encoded = bytearray()
    while number > 0x7F:  # noqa: PLR2004 -- seven bits
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])

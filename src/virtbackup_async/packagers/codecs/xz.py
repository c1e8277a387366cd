"""xz streams: written uncompressed, and found from the end of a file by their indexes.

::

    stream header    fd "7zXZ" 00 | flags 00 01: checked by CRC-32 | CRC-32 of the flags
    block header     length / 4 - 1 | 00 | filter 21: LZMA2 | 01 | dictionary 00 | 000000 | CRC-32
    block            01 or 02 | length - 1, 2 bytes, big-endian | 64 KiB at most    again and again
                     00 | padding to 4 | CRC-32 of the data
    index            00 | number of blocks | for each: length, decompressed length | padding
                     CRC-32
    footer           CRC-32 | length of the index / 4 - 1, 4 bytes | flags 2 | "YZ"

``compressor.py`` writes such a stream for data that cannot be made smaller: liblzma would write the
same, but only after it had tried to compress each 64 KiB. ``tar/members.py`` finds the streams of
an archive; damage of any kind is left to the sequential reader, which reports it best. The format
is https://tukaani.org/xz/xz-file-format.txt.
"""

import os
import struct
import zlib
from array import array
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
_FOOTER: Final = struct.Struct("<4xIH2s")
_MOST_INDEX_BYTES: Final = 64 * 1024


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


def xz_streams(fd: int, most_bytes: int) -> "array[int] | None":
    """Return the length and decompressed length of each stream, in a row, the last stream first.

    Returns:
        None if there is no stream, or if one is longer than ``most_bytes`` or damaged.
    """
    lengths = array("Q")
    end = os.fstat(fd).st_size
    while end > 0:
        try:
            length_bytes, plain_bytes = _stream_before(fd, end)
        except (ValueError, IndexError, struct.error):
            return None
        if max(length_bytes, plain_bytes) > most_bytes:
            return None
        end -= length_bytes
        lengths.extend((length_bytes, plain_bytes))
    return lengths if lengths and not end else None


def _stream_before(fd: int, end: int) -> tuple[int, int]:
    footer = os.pread(fd, _FOOTER.size, max(0, end - _FOOTER.size))
    backward, _flags, magic = _FOOTER.unpack(footer)
    index_bytes = 4 * (backward + 1)
    start = end - _FOOTER.size - index_bytes
    if magic != b"YZ" or start < 0 or index_bytes > _MOST_INDEX_BYTES:
        raise ValueError
    blocks = _records(os.pread(fd, index_bytes, start))
    packed_bytes = sum(-(-packed // 4) * 4 for packed, _ in blocks)
    length_bytes = len(_STREAM_HEADER) + packed_bytes + index_bytes + _FOOTER.size
    return length_bytes, sum(plain for _, plain in blocks)


def _records(index: bytes) -> list[tuple[int, int]]:
    numbers = _numbers(index)
    if next(numbers) != 0:
        raise ValueError
    count = next(numbers)
    if count > len(index):
        raise ValueError
    return [(next(numbers), next(numbers)) for _ in range(count)]


def _numbers(data: bytes) -> Iterator[int]:
    """Yield an index's numbers: seven bits a byte, lowest first; the eighth is a 'more' bit."""
    place = 0
    while True:
        number = shift = 0
        while (byte := data[place]) & 0x80:
            number |= (byte & 0x7F) << shift
            shift += 7
            place += 1
        yield number | byte << shift
        place += 1

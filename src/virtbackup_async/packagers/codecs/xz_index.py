"""The streams of an xz file, found from its end by their indexes.

::

    stream   header 12 | blocks | index | footer 12
    footer   CRC-32 4 | length of the index / 4 - 1, 4 | flags 2 | "YZ"
    index    00 | number of blocks | for each: length, decompressed length | padding | CRC-32 4

Used by ``tar/members.py``; the format is https://tukaani.org/xz/xz-file-format.txt. Damage of any
kind is left to the sequential reader, which reports it best.
"""

import os
import struct
from array import array
from collections.abc import Iterator
from typing import Final

_FOOTER: Final = struct.Struct("<4xIH2s")
_HEADER_BYTES: Final = 12
_MOST_INDEX_BYTES: Final = 64 * 1024


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
    length_bytes = _HEADER_BYTES + packed_bytes + index_bytes + _FOOTER.size
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

"""The members of a compressed archive, and how each of them is decompressed on its own.

::

    gzip    each member's header has its length                       gzip_member.py
    xz      the index at the end of each stream has it; read backwards
    bzip2   no length anywhere: a stream starts with a magic number, at a whole byte

Used by ``split_file.py``. Archives of other programs are mostly one long member, and cannot be
split. Invariant: even in a hostile archive, no member is longer than ``MOST_BYTES``, compressed or
decompressed.
"""

import bz2
import lzma
import os
import re
from array import array
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from msgspec import Struct

from virtbackup_async.packagers.codecs.gzip_member import (
    HEAD_BYTES,
    decompress_gzip,
    member_lengths,
)
from virtbackup_async.packagers.codecs.xz import xz_streams

MOST_BYTES: Final = 16 * 1024 * 1024
"""Twice the largest segment that ``compressor.py`` writes."""
_MOST_BZIP2_BYTES: Final = 4 * 1024 * 1024
_BZIP2_START: Final = re.compile(rb"BZh[1-9](?:1AY&SY|\x17\x72\x45\x38\x50\x90)")
_BZIP2_START_BYTES: Final = 10
_READ_BYTES: Final = 256 * 1024
# Decompression needs as much memory as the dictionary, whose size the archive states.
_XZ_MEMORY_BYTES: Final = 256 * 1024 * 1024


class Member(Struct, frozen=True):
    """``length_bytes`` of the archive from ``place``, and their decompressed length, if known."""

    place: int
    length_bytes: int
    plain_bytes: int | None = None


class Split(Struct, frozen=True):
    """How an archive is split: an iterator over its members, and the function for each of them."""

    members: Callable[[], Iterator[Member]]
    decompress: Callable[[bytes, int | None], bytes | bytearray]


def split_of(fd: int) -> Split | None:
    """Return how the archive in ``fd`` is split; None if it cannot be."""
    start = os.pread(fd, HEAD_BYTES, 0)
    if member_lengths(start) is not None:
        return Split(partial(_gzip_members, fd), decompress_gzip)
    if start.startswith(b"\xfd7zXZ\0"):
        lengths = xz_streams(fd, MOST_BYTES)
        return None if lengths is None else Split(partial(_xz_members, lengths), _xz)
    if _BZIP2_START.match(start) and _is_split_bzip2(fd):
        return Split(partial(_bzip2_members, fd), _bzip2)
    return None


def _gzip_members(fd: int) -> Iterator[Member]:
    place = 0
    while head := os.pread(fd, HEAD_BYTES, place):
        lengths = member_lengths(head)
        if lengths is None:
            raise ValueError(f"no gzip member at byte {place}")
        member = Member(place, *lengths)
        if max(lengths) > MOST_BYTES or member.length_bytes <= HEAD_BYTES:
            raise ValueError(f"impossible gzip member at byte {place}")
        yield member
        place += member.length_bytes


def _xz_members(lengths: "array[int]") -> Iterator[Member]:
    place = 0
    for index in range(len(lengths) - 2, -1, -2):
        yield Member(place, lengths[index], lengths[index + 1])
        place += lengths[index]


def _bzip2_members(fd: int) -> Iterator[Member]:
    place = 0
    buffer = bytearray(os.pread(fd, _READ_BYTES, 0))
    while buffer:
        end = _end_of_bzip2(fd, place, buffer)
        yield Member(place, end)
        place += end
        del buffer[:end]


def _end_of_bzip2(fd: int, place: int, buffer: bytearray) -> int:
    """Return the length of the stream at the start of ``buffer``, filled from ``place`` on."""
    searched = 1
    while (found := _BZIP2_START.search(buffer, searched)) is None:
        searched = max(1, len(buffer) - _BZIP2_START_BYTES)
        more = os.pread(fd, _READ_BYTES, place + len(buffer))
        if not more:
            return len(buffer)
        if len(buffer) > _MOST_BZIP2_BYTES:
            raise ValueError(f"bzip2 stream at byte {place} is too long")
        buffer += more
    return found.start()


def _is_split_bzip2(fd: int) -> bool:
    try:
        first = next(_bzip2_members(fd))
        _bzip2(os.pread(fd, first.length_bytes, 0), None)
    except (ValueError, OSError, EOFError):
        return False
    return True


def _xz(packed: bytes, plain_bytes: int | None) -> bytes:
    return _whole(lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY_BYTES), packed, plain_bytes)


def _bzip2(packed: bytes, plain_bytes: int | None) -> bytes:
    return _whole(bz2.BZ2Decompressor(), packed, plain_bytes, _MOST_BZIP2_BYTES)


def _whole(
    decompressor: lzma.LZMADecompressor | bz2.BZ2Decompressor,
    packed: bytes,
    plain_bytes: int | None,
    most_bytes: int = MOST_BYTES,
) -> bytes:
    most_bytes = most_bytes if plain_bytes is None else plain_bytes
    data = decompressor.decompress(packed, max_length=most_bytes + 1)
    if len(data) > most_bytes:
        raise ValueError("a member of it is too long")
    if not decompressor.eof:
        raise EOFError("it is cut off")
    if decompressor.unused_data or plain_bytes not in {None, len(data)}:
        raise ValueError("a member of it is not as long as it says")
    return data

"""Where the holes are in a zstd file of ours: a skippable frame behind the data.

::

    magic 0x184D2A5E, length                  4 bytes each, as all numbers little-endian
    holes         start, length, where the hole's blocks start in the file     8 bytes each
    data extents  start, length                                               8 bytes each
    number of holes, number of extents        4 bytes each
    "vbk-map" 0x01

Every zstd decoder passes over such frames (RFC 8878, section 3.1.2). Written by ``zstd.py``, read
by ``zstd_reader.py``. The holes are those that are laid down as such in the frame; the data extents
are those of the image, to be restored with all of its holes. Invariant: what ``read_map`` gives
ascends and lies inside the image and the file, however hostile the file is.
"""

import os
import struct
from collections.abc import Iterable
from itertools import chain
from typing import Final

from msgspec import Struct

from virtbackup_async.images.extents import MAX_EXTENTS
from virtbackup_async.model.extent import Extent
from virtbackup_async.packagers.zstd_frame import RESET

MAX_HOLES: Final = MAX_EXTENTS
_HEAD: Final = struct.Struct("<II")
_FOOT: Final = struct.Struct("<II8s")
_MAGIC: Final = 0x184D2A5E
_MARK: Final = b"vbk-map\x01"


class Hole(Struct, frozen=True):
    """A hole of the image, from byte ``start`` on, whose blocks are at ``place`` in the file."""

    start: int
    length: int
    place: int


class ZstdMap(Struct, frozen=True):
    """The holes of a frame, and the data extents of the image."""

    holes: tuple[Hole, ...]
    extents: tuple[Extent, ...]


def encode_map(zstd_map: ZstdMap) -> bytes:
    """The whole skippable frame."""
    holes = ((hole.start, hole.length, hole.place) for hole in zstd_map.holes)
    extents = ((extent.start, extent.length) for extent in zstd_map.extents)
    numbers = [*chain.from_iterable(holes), *chain.from_iterable(extents)]
    body = struct.pack(f"<{len(numbers)}Q", *numbers)
    foot = _FOOT.pack(len(zstd_map.holes), len(zstd_map.extents), _MARK)
    return _HEAD.pack(_MAGIC, len(body) + len(foot)) + body + foot


def read_map(fd: int, size_bytes: int) -> ZstdMap | None:
    """The map of the frame in ``fd``, which is ``size_bytes`` long; None in the files of others.

    Raises:
        ValueError: there is a map, and it is impossible.
    """
    end = os.fstat(fd).st_size
    foot = os.pread(fd, _FOOT.size, max(0, end - _FOOT.size))
    if len(foot) < _FOOT.size or not foot.endswith(_MARK):
        return None
    hole_count, extent_count, _ = _FOOT.unpack(foot)
    if hole_count > MAX_HOLES or extent_count > MAX_EXTENTS:
        raise ValueError("its map is too large")
    body_bytes = 8 * (3 * hole_count + 2 * extent_count)
    start = end - _FOOT.size - body_bytes - _HEAD.size
    frame = os.pread(fd, _HEAD.size + body_bytes, max(0, start))
    if start < 0 or frame[: _HEAD.size] != _HEAD.pack(_MAGIC, body_bytes + _FOOT.size):
        raise ValueError("its map is cut off")
    numbers = struct.unpack(f"<{body_bytes // 8}Q", frame[_HEAD.size :])
    holes = [Hole(*numbers[at : at + 3]) for at in range(0, 3 * hole_count, 3)]
    extents = [Extent(*numbers[at : at + 2]) for at in range(3 * hole_count, len(numbers), 2)]
    _check([(hole.start, hole.length) for hole in holes], size_bytes)
    _check([(extent.start, extent.length) for extent in extents], size_bytes)
    _check([(hole.place, len(RESET)) for hole in holes], start)
    return ZstdMap(tuple(holes), tuple(extents))


def _check(ranges: Iterable[tuple[int, int]], size_bytes: int) -> None:
    end = 0
    for start, length in ranges:
        if start < end or not length or start + length > size_bytes:
            raise ValueError("its map is impossible")
        end = start + length

"""The map of a zstd file's runs and holes: a skippable frame after the data.

::

    magic 0x184D2A5E, length                  4 bytes each, as all numbers little-endian
    runs          length of the data, length of its blocks      4 bytes each
    holes         start, length                                 8 bytes each
    data extents  start, length                                 8 bytes each
    number of runs, of holes, of extents      4 bytes each
    "vbk-map" 0x02

Every zstd decoder skips such frames (RFC 8878, section 3.1.2). Runs and holes follow each other and
make up the frame. The data extents are those of the image, so that all its holes are restored.
Invariant: even from a hostile file, all ranges ascend, and are inside the image and the file.
"""

import os
import struct
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final

from msgspec import Struct

from virtbackup_async.images.extents import MAX_EXTENTS
from virtbackup_async.model.extent import Extent
from virtbackup_async.packagers.zstd.frame import HEADER_BYTES, LAST_BLOCK, hole_length
from virtbackup_async.packagers.zstd.runs import MOST_RUN_BYTES

MAX_HOLES: Final = MAX_EXTENTS
MAX_RUNS: Final = 1 << 24
_HEAD: Final = struct.Struct("<II")
_RUN: Final = struct.Struct("<II")
_EXTENT: Final = struct.Struct("<QQ")
_FOOT: Final = struct.Struct("<III8s")
_MAGIC: Final = 0x184D2A5E
_MARK: Final = b"vbk-map\x02"


class ZstdMap(Struct, frozen=True):
    """The parts of a frame, and the data extents of the image.

    Attributes:
        runs: encoded as in the file; see ``packed_run``.
        holes: those holes of the image that are holes of the frame.
        extents: of the image.
    """

    runs: bytes
    holes: tuple[Extent, ...]
    extents: tuple[Extent, ...]


class FramePart(Struct, frozen=True):
    """A run or a hole: ``length`` bytes of the image from ``start``, in blocks at ``place``."""

    start: int
    length: int
    place: int
    packed_bytes: int
    is_hole: bool = False


def packed_run(plain_bytes: int, packed_bytes: int) -> bytes:
    """Return a run, encoded for ``ZstdMap.runs``."""
    return _RUN.pack(plain_bytes, packed_bytes)


def encode_map(zstd_map: ZstdMap) -> list[bytes]:
    """Return the complete skippable frame, in parts; none if a map cannot have so many runs."""
    runs, holes, extents = zstd_map.runs, zstd_map.holes, zstd_map.extents
    count = len(runs) // _RUN.size
    if count > MAX_RUNS:
        return []
    ranges = b"".join(_EXTENT.pack(one.start, one.length) for one in chain(holes, extents))
    foot = _FOOT.pack(count, len(holes), len(extents), _MARK)
    head = _HEAD.pack(_MAGIC, len(runs) + len(ranges) + len(foot))
    return [head, runs, ranges, foot]


def read_map(fd: int, size_bytes: int) -> tuple[ZstdMap, int] | None:
    """Return the map of the frame in ``fd``, and where the frame ends.

    Args:
        fd: the file.
        size_bytes: the length of the image.

    Returns:
        None for files of other programs, and for those that this program wrote before it had maps.

    Raises:
        ValueError: there is a map, but it is impossible.
    """
    end = os.fstat(fd).st_size
    foot = os.pread(fd, _FOOT.size, max(0, end - _FOOT.size))
    if len(foot) < _FOOT.size or not foot.endswith(_MARK):
        return None
    run_count, hole_count, extent_count, _ = _FOOT.unpack(foot)
    if run_count > MAX_RUNS or hole_count > MAX_HOLES or extent_count > MAX_EXTENTS:
        raise ValueError("its map is too large")
    body_bytes = _RUN.size * run_count + _EXTENT.size * (hole_count + extent_count)
    frame_end = end - _FOOT.size - body_bytes - _HEAD.size
    before = LAST_BLOCK + _HEAD.pack(_MAGIC, body_bytes + _FOOT.size)
    start = frame_end - len(LAST_BLOCK)
    content = os.pread(fd, len(before) + body_bytes, max(0, start))
    if start < 0 or not content.startswith(before):
        raise ValueError("its map is cut off")
    body = memoryview(content)[len(before) :]
    runs, packed_ranges = body[: _RUN.size * run_count], body[_RUN.size * run_count :]
    ranges = tuple(Extent(*numbers) for numbers in _EXTENT.iter_unpack(packed_ranges))
    zstd_map = ZstdMap(bytes(runs), ranges[:hole_count], ranges[hole_count:])
    _check(zstd_map.holes, size_bytes)
    _check(zstd_map.extents, size_bytes)
    return zstd_map, frame_end


def pieces_of(zstd_map: ZstdMap, size_bytes: int, end: int) -> Iterator[FramePart]:
    """Yield the parts of the frame, from front to back.

    Args:
        zstd_map: as ``read_map`` returned it.
        size_bytes: the length of the image.
        end: where the frame ends.

    Raises:
        ValueError: runs and holes do not make up the image, or the frame.
    """
    position, place = 0, HEADER_BYTES
    runs = _RUN.iter_unpack(zstd_map.runs)
    for hole in chain(zstd_map.holes, (None,)):
        hole_start = size_bytes if hole is None else hole.start
        while position < hole_start:
            length, packed_bytes = next(runs, (0, 0))
            yield _checked_run(FramePart(position, length, place, packed_bytes), hole_start)
            position, place = position + length, place + packed_bytes
        if hole is not None:
            packed_bytes = hole_length(hole.length, is_first=not position)
            yield FramePart(position, hole.length, place, packed_bytes, is_hole=True)
            position, place = hole.end, place + packed_bytes
    if next(runs, None) is not None or place + len(LAST_BLOCK) != end:
        raise ValueError("its map is not that of its frame")


def _checked_run(run: FramePart, most_end: int) -> FramePart:
    too_long = max(run.length, run.packed_bytes // 2) > MOST_RUN_BYTES
    if too_long or not run.length or run.start + run.length > most_end:
        raise ValueError("its map has an impossible run")
    return run


def _check(ranges: Iterable[Extent], size_bytes: int) -> None:
    end = 0
    for one in ranges:
        if one.start < end or not one.length or one.end > size_bytes:
            raise ValueError("its map is impossible")
        end = one.end

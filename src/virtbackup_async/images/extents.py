"""Which parts of an image are data, and in which pieces they are read.

::

    image    |  data  |      hole       |data|hole|  data  |
    leaves   |    0    |    1    |    2    |    3    |  4  |     the last one is shorter
    planned  |dddd-----|         |---dd--dd|dddddd---|     |     1 and 4 are holes
             |    0    |         |         1         |     |
    buffer   |    0    |         1         |                     read in one step

Used by streams and packagers. Invariant: data extents ascend, do not touch each other, and are
inside the image.
"""

import errno
import os
from collections.abc import Iterable, Iterator
from typing import Final

from msgspec import Struct

from virtbackup_async.images.buffers import BUFFER_BYTES
from virtbackup_async.images.digest import LEAF_BYTES
from virtbackup_async.model.extent import Extent

MAX_EXTENTS: Final = 65536
PAGE_BYTES: Final = 4096
_ZERO_PAGE: Final = bytes(PAGE_BYTES)


class PlannedPiece(Struct, frozen=True):
    """Neighbouring leaves that fit into a buffer: offset, length, and the ranges that are data."""

    offset: int
    length: int
    ranges: tuple[Extent, ...]


def data_length(extents: Iterable[Extent]) -> int:
    """Return how many bytes the extents cover."""
    return sum(extent.length for extent in extents)


def scan_data(fd: int, size_bytes: int) -> tuple[Extent, ...]:
    """Return which parts of a file are not holes, by the file system. Blocks."""
    return bounded(_seek_data(fd, size_bytes))


def bounded(extents: Iterable[Extent], most: int | None = None) -> tuple[Extent, ...]:
    """Join extents that touch each other, and limit their number.

    A badly fragmented file would take memory without end. So the smallest holes count as data if
    there are more extents than ``most``, or than ``MAX_EXTENTS``.
    """
    found: list[Extent] = []
    smallest_hole = 1
    for extent in extents:
        _append(found, extent, smallest_hole)
        while len(found) > (most or MAX_EXTENTS):
            smallest_hole = max(4096, smallest_hole * 2)
            found = _merge(found, smallest_hole)
    return tuple(found)


def common(some: Iterable[Extent], others: Iterable[Extent]) -> Iterator[Extent]:
    """Yield the parts that are in both; all three ascend."""
    rest = iter(others)
    other = next(rest, None)
    for extent in some:
        while other is not None and other.start < extent.end:
            start, end = max(extent.start, other.start), min(extent.end, other.end)
            if start < end:
                yield Extent(start, end - start)
            if other.end > extent.end:
                break
            other = next(rest, None)


def plan_buffers(
    size_bytes: int, extents: tuple[Extent, ...] | None
) -> Iterator[tuple[PlannedPiece, ...]]:
    """Group the pieces of ``plan_pieces`` that fit into one buffer, however far apart they are."""
    gathered: list[PlannedPiece] = []
    gathered_bytes = 0
    for planned in plan_pieces(size_bytes, extents):
        if gathered_bytes + planned.length > BUFFER_BYTES:
            yield tuple(gathered)
            gathered, gathered_bytes = [], 0
        gathered.append(planned)
        gathered_bytes += planned.length
    if gathered:
        yield tuple(gathered)


def plan_pieces(size_bytes: int, extents: tuple[Extent, ...] | None) -> Iterator[PlannedPiece]:
    """Yield the leaves that contain data, in pieces of neighbours that fit into a buffer.

    ``None`` for the extents plans the whole image as data.
    """
    whole = (Extent(0, size_bytes),) if size_bytes else ()
    offset = end = 0
    ranges: list[Extent] = []
    for piece in _cut(whole if extents is None else extents):
        start = piece.start - piece.start % LEAF_BYTES
        if ranges and (start > end or start - offset >= BUFFER_BYTES):
            yield PlannedPiece(offset, end - offset, tuple(ranges))
            ranges = []
        if not ranges:
            offset = start
        end = min(start + LEAF_BYTES, size_bytes)
        _append(ranges, piece, smallest_hole=1)
    if ranges:
        yield PlannedPiece(offset, end - offset, tuple(ranges))


def find_data(planned: PlannedPiece, buffer: memoryview) -> tuple[Extent, ...]:
    """Return the pages of a piece that are not all zeros; ``buffer`` starts with the piece."""
    found: list[Extent] = []
    for start in range(0, planned.length, PAGE_BYTES):
        length = min(PAGE_BYTES, planned.length - start)
        # Views are compared item by item; copied first, it is a third of the time.
        if bytes(buffer[start : start + length]) != _ZERO_PAGE[:length]:
            _append(found, Extent(planned.offset + start, length), smallest_hole=1)
    return tuple(found)


def _cut(extents: Iterable[Extent]) -> Iterator[Extent]:
    for extent in extents:
        start = extent.start
        while start < extent.end:
            end = min(extent.end, start - start % LEAF_BYTES + LEAF_BYTES)
            yield Extent(start, end - start)
            start = end


def _seek_data(fd: int, size_bytes: int) -> Iterator[Extent]:
    end = 0
    while end < size_bytes:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
            end = os.lseek(fd, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only hole from here on
                return
            if error.errno != errno.EINVAL:
                raise
            start, end = end, size_bytes  # the file system does not know: all can be data
        if start >= size_bytes:  # it has grown since its size was taken
            return
        yield Extent(start, min(end, size_bytes) - start)


def _append(found: list[Extent], extent: Extent, smallest_hole: int) -> None:
    if found and extent.start - found[-1].end < smallest_hole:
        start = found.pop().start
        extent = Extent(start, extent.end - start)
    found.append(extent)


def _merge(extents: list[Extent], smallest_hole: int) -> list[Extent]:
    merged: list[Extent] = []
    for extent in extents:
        _append(merged, extent, smallest_hole)
    return merged

"""Which parts of an image are data, and how they fall into chunks.

::

    image    |  data  |      hole       |data|hole|  data  |
    leaves   |    0    |    1    |    2    |    3    |  4  |     the last one is shorter
    planned  |dddd-----|         |---dd--dd|dddddd---|     |     1 and 4 are holes
             |    0    |         |         1         |     |
    buffer   |    0    |         1         |                     read at once

Used by the streams and by the tar packager. Invariant: data extents ascend, do not touch each
other and lie inside the image.
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


class PlannedChunk(Struct, frozen=True):
    """Neighbours that fit into a buffer: where they are, how long, and which parts are data."""

    offset: int
    length: int
    ranges: tuple[Extent, ...]


def data_length(extents: Iterable[Extent]) -> int:
    """How many bytes the extents cover."""
    return sum(extent.length for extent in extents)


def scan_data(fd: int, size_bytes: int) -> tuple[Extent, ...]:
    """Ask the file system which parts of a file are not holes. Blocking."""
    return bounded(_seek_data(fd, size_bytes))


def bounded(extents: Iterable[Extent], most: int | None = None) -> tuple[Extent, ...]:
    """Join extents that touch each other, and do not let them be too many.

    A badly fragmented file would cost memory without end: beyond ``most``, or
    ``MAX_EXTENTS``, the smallest holes are
    taken for data.
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
    """Give what is in both; each ascends, and so does what is given."""
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
) -> Iterator[tuple[PlannedChunk, ...]]:
    """Gather the chunks of ``plan_chunks`` that fit into a buffer together, however far apart."""
    gathered: list[PlannedChunk] = []
    gathered_bytes = 0
    for planned in plan_chunks(size_bytes, extents):
        if gathered_bytes + planned.length > BUFFER_BYTES:
            yield tuple(gathered)
            gathered, gathered_bytes = [], 0
        gathered.append(planned)
        gathered_bytes += planned.length
    if gathered:
        yield tuple(gathered)


def plan_chunks(size_bytes: int, extents: tuple[Extent, ...] | None) -> Iterator[PlannedChunk]:
    """Gather the leaves that have data in them, neighbours together, as many as fit into a buffer.

    ``None`` for the extents plans the whole image as data.
    """
    whole = (Extent(0, size_bytes),) if size_bytes else ()
    offset = end = 0
    ranges: list[Extent] = []
    for piece in _cut(whole if extents is None else extents):
        start = piece.start - piece.start % LEAF_BYTES
        if ranges and (start > end or start - offset >= BUFFER_BYTES):
            yield PlannedChunk(offset, end - offset, tuple(ranges))
            ranges = []
        if not ranges:
            offset = start
        end = min(start + LEAF_BYTES, size_bytes)
        _append(ranges, piece, smallest_hole=1)
    if ranges:
        yield PlannedChunk(offset, end - offset, tuple(ranges))


def find_data(planned: PlannedChunk, buffer: memoryview) -> tuple[Extent, ...]:
    """Find the pages of a chunk, which ``buffer`` begins with, that are not all zeros."""
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
            start, end = end, size_bytes  # the file system cannot tell: all of it may be data
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

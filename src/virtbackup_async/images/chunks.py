"""Buffers full of an image's bytes: filled from a source, hashed, cut into what is handed on.

::

    buffer       |                 MiB 5                 |     what was planned to be read at once
    bytes        |dddd-dddd|ddd------|000000000|--ddddddd|     d data, 0 zeros, - holes
    leaves       |    x    |    x    |    0    |    x    |     of the digest: a hash for each piece
    chunks       |         0         |         |    1    |     what is all zeros is not handed on

The blocking side of ``stream.py``, in worker threads.
"""

from collections.abc import Iterator
from typing import Protocol

from msgspec import Struct

from virtbackup_async.images.digest import LEAF_BYTES, ImageDigest, leaf_of, zero_leaf_of
from virtbackup_async.images.extents import PlannedChunk, find_data
from virtbackup_async.model.extent import Extent


class Chunk(Struct, frozen=True):
    """Some pieces of an image, one after the other; the last one of an image may be shorter.

    Attributes:
        offset: where in the image it starts; a multiple of ``LEAF_BYTES``.
        data: all of it, zeros where a hole is; valid until the stream's next step.
        ranges: the parts that are not holes, at their places in the image.
        leaves: the hash of each piece, see ``digest.py``.
    """

    offset: int
    data: memoryview
    ranges: tuple[Extent, ...]
    leaves: tuple[bytes, ...]


class ImageReader(Protocol):
    """The blocking side of a source, called in worker threads, one call at a time.

    ``read`` fills ``target`` with the image's bytes from ``offset`` on, or raises an error of
    ``errors.py``. Only bytes of ``data_extents`` are asked for, all of them where it is None;
    offsets ascend.
    """

    @property
    def size_bytes(self) -> int: ...
    @property
    def data_extents(self) -> tuple[Extent, ...] | None: ...
    def read(self, offset: int, target: memoryview) -> None: ...


def fill(buffer: memoryview, planned: PlannedChunk, reader: ImageReader) -> None:
    """Read what was planned into the front of ``buffer``, zeros where holes are."""
    data = buffer[: planned.length]
    done = 0
    for extent in planned.ranges:
        start, end = extent.start - planned.offset, extent.end - planned.offset
        data[done:start] = bytes(start - done)
        reader.read(extent.start, data[start:end])
        done = end
    data[done:] = bytes(len(data) - done)


def cut(
    buffer: memoryview, planned: PlannedChunk, digest: ImageDigest, *, knows_holes: bool
) -> tuple[Chunk, ...]:
    """Hash what ``buffer`` was filled with; give the chunks of it that are not all zeros.

    Args:
        buffer: full of what was planned.
        planned: what that was.
        digest: gets the leaves.
        knows_holes: whether the planned ranges tell holes; if not, pages of zeros are such.
    """
    chunks = []
    for start, end, leaves in _runs_of_data(buffer[: planned.length], planned.offset, digest):
        run = PlannedChunk(planned.offset + start, end - start, ())
        data = buffer[start:end]
        ranges = _within(planned.ranges, run) if knows_holes else find_data(run, data)
        chunks.append(Chunk(run.offset, data, ranges, tuple(leaves)))
    return tuple(chunks)


def _runs_of_data(
    data: memoryview, offset: int, digest: ImageDigest
) -> Iterator[tuple[int, int, list[bytes]]]:
    """Yield start, end and leaves of neighbouring pieces in ``data`` that are not all zeros."""
    run_start = 0
    leaves: list[bytes] = []
    for start in range(0, len(data), LEAF_BYTES):
        leaf_data = data[start : start + LEAF_BYTES]
        leaf = leaf_of(leaf_data)
        digest.add(offset + start, leaf)
        if leaf != zero_leaf_of(len(leaf_data)):
            if not leaves:
                run_start = start
            leaves.append(leaf)
        elif leaves:
            yield run_start, start, leaves
            leaves = []
    if leaves:
        yield run_start, len(data), leaves


def _within(ranges: tuple[Extent, ...], run: PlannedChunk) -> tuple[Extent, ...]:
    clipped = (
        (max(extent.start, run.offset), min(extent.end, run.offset + run.length))
        for extent in ranges
    )
    return tuple(Extent(start, end - start) for start, end in clipped if start < end)

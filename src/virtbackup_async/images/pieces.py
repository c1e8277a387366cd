"""Buffers full of an image's bytes: filled from a source, hashed, cut into what is handed on.

::

    buffer       |        leaves 20 to 23 of an image    |     what was planned to be read at once
    bytes        |dddd-dddd|ddd------|000000000|--ddddddd|     d data, 0 zeros, - holes
    leaves       |    x    |    x    |    0    |    x    |     of the digest: a hash for each piece
    chunks       |         0         |         |    1    |     what is all zeros is not handed on

A buffer may hold several such, of places in the image that are far apart. The blocking side of
``stream.py``, in worker threads.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from msgspec import Struct

from virtbackup_async.images.digest import LEAF_BYTES, ImageDigest, leaf_of, zero_leaf_of
from virtbackup_async.images.extents import PlannedChunk, find_data
from virtbackup_async.model.extent import Extent

Wanted = tuple[int, memoryview]
"""Where in an image, and the memory to be filled with what is there."""


KnownLeaf = Callable[[int], bytes | None]
"""Gives the leaf of the piece at an offset, if the source has hashed all of it; asked once."""


def no_leaf(_offset: int) -> None:
    """Know of no piece: of sources that hash nothing."""


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

    ``read`` fills all that is wanted, in whatever order, or raises an error of ``errors.py``. Only
    bytes of ``data_extents`` are asked for, all of them where it is None; offsets ascend.
    """

    @property
    def size_bytes(self) -> int: ...
    @property
    def data_extents(self) -> tuple[Extent, ...] | None: ...
    def read(self, wanted: Sequence[Wanted]) -> None: ...


def fill(buffer: memoryview, planned: Sequence[PlannedChunk], reader: ImageReader) -> None:
    """Read what was planned into the front of ``buffer``, zeros where holes are."""
    wanted: list[Wanted] = []
    for chunk, data in _places(buffer, planned):
        done = 0
        for extent in chunk.ranges:
            start, end = extent.start - chunk.offset, extent.end - chunk.offset
            data[done:start] = bytes(start - done)
            wanted.append((extent.start, data[start:end]))
            done = end
        data[done:] = bytes(len(data) - done)
    reader.read(wanted)


def cut(
    buffer: memoryview,
    planned: Sequence[PlannedChunk],
    digest: ImageDigest,
    *,
    knows_holes: bool,
    known_leaf: KnownLeaf = no_leaf,
) -> tuple[Chunk, ...]:
    """Hash what ``buffer`` was filled with; give the chunks of it that are not all zeros.

    Args:
        buffer: full of what was planned.
        planned: what that was.
        digest: gets the leaves.
        knows_holes: whether the planned ranges tell holes; if not, pages of zeros are such.
        known_leaf: spares the hashing of pieces that the source has hashed.
    """
    return tuple(
        chunk
        for whole, data in _places(buffer, planned)
        for chunk in _cut(whole, data, digest, known_leaf, knows_holes=knows_holes)
    )


def _places(
    buffer: memoryview, planned: Sequence[PlannedChunk]
) -> Iterator[tuple[PlannedChunk, memoryview]]:
    """Give each chunk, and where in the buffer it is: one behind the other."""
    start = 0
    for chunk in planned:
        yield chunk, buffer[start : start + chunk.length]
        start += chunk.length


def _cut(
    planned: PlannedChunk,
    data: memoryview,
    digest: ImageDigest,
    known_leaf: KnownLeaf,
    *,
    knows_holes: bool,
) -> Iterator[Chunk]:
    for start, end, leaves in _runs_of_data(data, planned.offset, digest, known_leaf):
        run = PlannedChunk(planned.offset + start, end - start, ())
        part = data[start:end]
        ranges = _within(planned.ranges, run) if knows_holes else find_data(run, part)
        yield Chunk(run.offset, part, ranges, tuple(leaves))


def _runs_of_data(
    data: memoryview, offset: int, digest: ImageDigest, known_leaf: KnownLeaf
) -> Iterator[tuple[int, int, list[bytes]]]:
    """Yield start, end and leaves of neighbouring pieces in ``data`` that are not all zeros."""
    run_start = 0
    leaves: list[bytes] = []
    for start in range(0, len(data), LEAF_BYTES):
        leaf_data = data[start : start + LEAF_BYTES]
        leaf = known_leaf(offset + start) or leaf_of(leaf_data)
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

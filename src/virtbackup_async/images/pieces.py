"""Buffers of an image's bytes: filled from a source, hashed, and cut into pieces.

::

    buffer       |        leaves 20 to 23 of an image    |     read in one step
    bytes        |dddd-dddd|ddd------|000000000|--ddddddd|     d data, 0 zeros, - holes
    leaves       |    x    |    x    |    0    |    x    |     of the digest, 256 KiB each
    pieces       |         0         |         |    1    |     leaves of zeros are left out

One buffer can hold several such ranges, from distant parts of the image. This is the blocking side
of ``stream.py``, and runs in worker threads.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from msgspec import Struct

from virtbackup_async.images.digest import LEAF_BYTES, ImageDigest, leaf_of, zero_leaf_of
from virtbackup_async.images.extents import PlannedPiece, find_data
from virtbackup_async.model.extent import Extent

Wanted = tuple[int, memoryview]
"""An offset in an image, and the memory to fill with the bytes from there."""


KnownLeaf = Callable[[int], bytes | None]
"""Returns the leaf at an offset if the source has hashed all its bytes; called once for each."""


def no_leaf(_offset: int) -> None:
    """Know no leaf: for sources that hash nothing."""


class Piece(Struct, frozen=True):
    """A part of an image: some leaves in a row, of which an image's last one can be shorter.

    Attributes:
        offset: in the image; a multiple of ``LEAF_BYTES``.
        data: all bytes, with zeros for holes; valid until the stream's next step.
        ranges: the parts that are not holes, by their offsets in the image.
        leaves: the hashes, see ``digest.py``.
    """

    offset: int
    data: memoryview
    ranges: tuple[Extent, ...]
    leaves: tuple[bytes, ...]


class ImageReader(Protocol):
    """The blocking side of a source, called in worker threads, one call at a time.

    ``read`` fills all the memory, in any order, or raises an error of ``errors.py``. It is only
    called for bytes of ``data_extents``, or for any bytes if that is None. Offsets ascend.
    """

    @property
    def size_bytes(self) -> int: ...
    @property
    def data_extents(self) -> tuple[Extent, ...] | None: ...
    def read(self, wanted: Sequence[Wanted]) -> None: ...


def fill(buffer: memoryview, planned: Sequence[PlannedPiece], reader: ImageReader) -> None:
    """Read the planned pieces into the start of ``buffer``, with zeros for holes."""
    wanted: list[Wanted] = []
    for piece, data in _places(buffer, planned):
        done = 0
        for extent in piece.ranges:
            start, end = extent.start - piece.offset, extent.end - piece.offset
            data[done:start] = bytes(start - done)
            wanted.append((extent.start, data[start:end]))
            done = end
        data[done:] = bytes(len(data) - done)
    reader.read(wanted)


def cut(
    buffer: memoryview,
    planned: Sequence[PlannedPiece],
    digest: ImageDigest,
    *,
    knows_holes: bool,
    known_leaf: KnownLeaf = no_leaf,
) -> tuple[Piece, ...]:
    """Hash the bytes in ``buffer``, and return its pieces without the leaves of zeros.

    Args:
        buffer: filled by ``fill``.
        planned: the same as for ``fill``.
        digest: receives the leaves.
        knows_holes: whether the planned ranges show the holes; if not, pages of zeros count as
            holes.
        known_leaf: returns leaves that need not be hashed again.
    """
    return tuple(
        piece
        for whole, data in _places(buffer, planned)
        for piece in _cut(whole, data, digest, known_leaf, knows_holes=knows_holes)
    )


def _places(
    buffer: memoryview, planned: Sequence[PlannedPiece]
) -> Iterator[tuple[PlannedPiece, memoryview]]:
    """Yield each piece with its part of the buffer; they follow each other."""
    start = 0
    for piece in planned:
        yield piece, buffer[start : start + piece.length]
        start += piece.length


def _cut(
    planned: PlannedPiece,
    data: memoryview,
    digest: ImageDigest,
    known_leaf: KnownLeaf,
    *,
    knows_holes: bool,
) -> Iterator[Piece]:
    for start, end, leaves in _runs_of_data(data, planned.offset, digest, known_leaf):
        run = PlannedPiece(planned.offset + start, end - start, ())
        part = data[start:end]
        ranges = _within(planned.ranges, run) if knows_holes else find_data(run, part)
        yield Piece(run.offset, part, ranges, tuple(leaves))


def _runs_of_data(
    data: memoryview, offset: int, digest: ImageDigest, known_leaf: KnownLeaf
) -> Iterator[tuple[int, int, list[bytes]]]:
    """Yield start, end and hashes of each run of leaves in ``data`` that are not all zeros."""
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


def _within(ranges: tuple[Extent, ...], run: PlannedPiece) -> tuple[Extent, ...]:
    clipped = (
        (max(extent.start, run.offset), min(extent.end, run.offset + run.length))
        for extent in ranges
    )
    return tuple(Extent(start, end - start) for start, end in clipped if start < end)

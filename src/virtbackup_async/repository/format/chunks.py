"""Chunks: the unit in which equal data is found, and how an image is divided into them.

::

    image    |  256 KiB  |  256 KiB  |  256 KiB  | short end |
    number   |     0     |     1     |     2     |     3     |
    pages    |####----...|           |###########|####       |     a bit for each 4 KiB of data
    id       |  BLAKE3   | all zeros |  BLAKE3   |  BLAKE3   |     of all of it, holes as zeros

Chunks have a fixed length and place; docs/explanation/decisions/repository-chunks.md explains both.
"""

from collections.abc import Sequence
from typing import Final

from virtbackup_async.images.digest import LEAF_BYTES, leaf_of
from virtbackup_async.images.extents import PAGE_BYTES
from virtbackup_async.model.extent import Extent

CHUNK_BYTES: Final = LEAF_BYTES
ID_BYTES: Final = 32
_SHOWN_DIGITS: Final = 12
PAGES: Final = CHUNK_BYTES // PAGE_BYTES
ALL_PAGES: Final = (1 << PAGES) - 1


def chunk_id(data: memoryview | bytes) -> bytes:
    """Return the id of a chunk in a repository without a key: its leaf in the image's digest."""
    return leaf_of(data)


def length_of(number: int, size_bytes: int) -> int:
    """Return the length of chunk ``number`` of an image; 0 or less past the end of the image."""
    return min(CHUNK_BYTES, size_bytes - number * CHUNK_BYTES)


def pages_of(number: int, ranges: Sequence[Extent]) -> int:
    """Return the pages of a chunk that ``ranges`` of the image touch; page 0 is bit 0."""
    start = number * CHUNK_BYTES
    pages = 0
    for extent in ranges:
        first = max(extent.start - start, 0) // PAGE_BYTES
        after = -(-min(extent.end - start, CHUNK_BYTES) // PAGE_BYTES)
        if first < after:
            pages |= (1 << after) - (1 << first)
    return pages


def short(id_: bytes) -> str:
    """Return an id as messages show it: enough digits to find the chunk again."""
    return id_.hex()[:_SHOWN_DIGITS]


def extents_of(number: int, pages: int, size_bytes: int) -> list[Extent]:
    """Return the runs of data pages of a chunk as extents of the image."""
    start, length = number * CHUNK_BYTES, length_of(number, size_bytes)
    if pages == ALL_PAGES:
        return [Extent(start, length)]
    found = []
    page = 0
    while pages >> page:
        first = page + _zeros_below(pages >> page)
        page = first + _zeros_below(~(pages >> first))
        end = min(page * PAGE_BYTES, length)
        if first * PAGE_BYTES < end:
            found.append(Extent(start + first * PAGE_BYTES, end - first * PAGE_BYTES))
    return found


def _zeros_below(bits: int) -> int:
    """Count the zeros below the lowest one."""
    return (bits & -bits).bit_length() - 1

"""The map of an image: a file in the directory of the domain that lists the chunks of the image.

::

    head     magic, version, length of chunks, repository, length of the image     48 bytes
    entries  number of the chunk (u64), its pages (u64), its leaf (32 bytes)       48 bytes each
    tail     BLAKE3 of all before                                                  32 bytes

Pure: bytes in, values out. Numbers ascend; a chunk of zeros has no entry. A map lists all of its
image, so that any other backup can be removed. docs/reference/repository-format.md has
the tables.
"""

import struct
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from virtbackup_async.errors import CorruptError, NewerVersionError
from virtbackup_async.images.digest import check_length
from virtbackup_async.images.extents import PAGE_BYTES
from virtbackup_async.repository.format.chunks import CHUNK_BYTES, ID_BYTES, PAGES

MAGIC: Final = b"vbk-map\0"
VERSION: Final = 1
TAIL_BYTES: Final = 32
_HEAD: Final = struct.Struct("<8sHHI16sQ8x")
_ENTRY: Final = struct.Struct(f"<QQ{ID_BYTES}s")
# The same for many at once.
ENTRY: Final = np.dtype([("number", "<u8"), ("pages", "<u8"), ("leaf", f"V{ID_BYTES}")])
HEAD_BYTES: Final = _HEAD.size
ENTRY_BYTES: Final = _ENTRY.size

Entries = NDArray[np.void]
Leaves = NDArray[np.void]
"""The leaves of some entries, 32 bytes each; ids have the same type."""


class MapEntry(NamedTuple):
    """A chunk of an image that is not all zeros.

    Attributes:
        number: its place in the image.
        pages: which of its pages are data.
        leaf: the hash of its bytes, see ``cipher.py``; its id in a repository without a key.
    """

    number: int
    pages: int
    leaf: bytes


class MapHead(Struct, frozen=True):
    """The repository of the chunks, and the length of the image."""

    repository_id: bytes
    size_bytes: int


def encode_head(head: MapHead) -> bytes:
    """Return the first bytes of a map."""
    return _HEAD.pack(MAGIC, VERSION, 0, CHUNK_BYTES, head.repository_id, head.size_bytes)


def decode_head(data: bytes) -> MapHead:
    """Return the head of a map from its first bytes.

    Raises:
        NewerVersionError: a newer program wrote it.
        CorruptError: it is not a map.
    """
    if len(data) < HEAD_BYTES or not data.startswith(MAGIC):
        raise CorruptError("it is not a map of chunks")
    _, version, flags, chunk_bytes, repository_id, size_bytes = _HEAD.unpack_from(data)
    if (version, flags, chunk_bytes) != (VERSION, 0, CHUNK_BYTES):
        raise NewerVersionError(f"its version {version} is not known")
    check_length(size_bytes)
    return MapHead(repository_id, size_bytes)


def entries_of(entries: Iterable[MapEntry]) -> Entries:
    """Return entries in the form in which a map stores them."""
    return np.array([*entries], dtype=ENTRY)


def decode_entries(data: bytes) -> Iterator[MapEntry]:
    """Yield the entries in ``data``."""
    return map(MapEntry._make, _ENTRY.iter_unpack(data))


def entry_count(file_bytes: int) -> int:
    """Return how many entries are in a map of that length.

    Raises:
        CorruptError: no map is that long.
    """
    count, rest = divmod(file_bytes - HEAD_BYTES - TAIL_BYTES, ENTRY_BYTES)
    if rest or count < 0:
        raise CorruptError("it is cut off")
    return count


def check_entries(entries: Entries, last_number: int, head: MapHead) -> None:
    """Check that entries ascend, follow the entry before them, and are inside the image.

    Args:
        entries: of ``ENTRY``; at least one.
        last_number: of the entry before them; -1 if there is none.
        head: the map's.

    Raises:
        CorruptError: they do not.
    """
    numbers = entries["number"]
    chunks = -(-head.size_bytes // CHUNK_BYTES)
    is_wrong = (numbers >= chunks) | (entries["pages"] == 0)
    is_wrong[1:] |= numbers[1:] <= numbers[:-1]
    is_wrong[0] |= int(numbers[0]) <= last_number
    if is_wrong.any():
        number = int(numbers[is_wrong.argmax()])
        raise CorruptError(f"its entry of chunk {number} makes no sense")


def data_length_of(entries: Entries, size_bytes: int) -> int:
    """Return how many bytes of data an image has in the pages of some entries, at least one."""
    bits = np.unpackbits(np.ascontiguousarray(entries["pages"]).view(np.uint8))
    length_bytes = int(np.count_nonzero(bits)) * PAGE_BYTES
    number, pages = int(entries["number"][-1]), int(entries["pages"][-1])
    # The last page of an image may be shorter.
    last_page = (size_bytes - 1) // PAGE_BYTES - number * PAGES
    has_last = last_page < PAGES and pages >> last_page & 1
    return length_bytes - (-size_bytes % PAGE_BYTES if has_last else 0)

"""Where the bytes of a qcow2 image's disk are: in a cluster, compressed, nowhere, or below.

Pure: the caller reads the tables. An image may be damaged or hostile: every number is checked
before it is used, and every table is bounded. Format: QEMU's docs/interop/qcow2.txt.
"""

import struct
import sys
from array import array
from collections.abc import Iterator
from enum import Enum
from typing import Final

from msgspec import Struct

from virtbackup_async.errors import CorruptError, ImageError

_MAGIC: Final = b"QFI\xfb"
_HEADER: Final = struct.Struct(">4sIQIIQIIQQIIQ")
_FEATURES: Final = struct.Struct(">Q")
_FEATURES_AT: Final = 72
_COMPRESSION_AT: Final = 104
_DATA_FILE, _COMPRESSION_TYPE, _EXTENDED_L2 = 1 << 2, 1 << 3, 1 << 4
# Neither concerns a reader: 1 and 2 say that refcounts are wrong, or that QEMU refuses to write.
_IGNORED: Final = 1 << 0 | 1 << 1
_LEAST_BITS, _MOST_BITS = 9, 21
_MOST_L1_BYTES: Final = 32 << 20
_OFFSET_MASK: Final = (1 << 56) - (1 << 9)
_COMPRESSED: Final = 1 << 62
_ALL_ZERO: Final = 1
_SUBCLUSTERS: Final = 32
_SECTOR: Final = 512
_VERSION_3: Final = 3
_ZLIB, _ZSTD = 0, 1


class Kind(Enum):
    """Where a part of the disk is."""

    DATA = "data"
    ZERO = "zero"
    BELOW = "below"
    COMPRESSED = "compressed"


class Part(Struct, frozen=True):
    """A part of the disk.

    Attributes:
        kind: where it is.
        start: its offset in the disk.
        length: its length.
        place: its offset in the image; of compressed data, where that begins.
        packed_bytes: the most that compressed data takes.
        skipped: how many bytes of the decompressed cluster precede the part.
    """

    kind: Kind
    start: int
    length: int
    place: int = 0
    packed_bytes: int = 0
    skipped: int = 0


class Shape(Struct, frozen=True):
    """The header of an image, as far as a reader needs it.

    Attributes:
        size_bytes: the length of the disk.
        cluster: in bytes.
        l1_place: where the L1 table is.
        l1_entries: how many entries it has.
        is_extended: whether clusters have subclusters.
        is_zstd: whether compressed clusters are zstd, in place of deflate.
    """

    size_bytes: int
    cluster: int
    l1_place: int
    l1_entries: int
    is_extended: bool
    is_zstd: bool

    @property
    def table_entries(self) -> int:
        """The number of clusters in an L2 table."""
        return self.cluster // (16 if self.is_extended else 8)

    @property
    def table_covers(self) -> int:
        """The bytes of the disk that an L2 table is about."""
        return self.table_entries * self.cluster


def shape_of(head: bytes, name: str) -> Shape:
    """Read the header of an image; ``name`` is for messages.

    Raises:
        CorruptError: it is no qcow2 image, or an impossible one.
        ImageError: it is encrypted, or has its data elsewhere, or needs what is not known here.
    """
    if len(head) < _HEADER.size or not head.startswith(_MAGIC):
        raise CorruptError(f"{name} is no qcow2 image")
    fields = _HEADER.unpack_from(head)
    _, version, _, _, bits, size_bytes, crypt, l1_entries, l1_place, *_ = fields
    features = compression = 0
    if version >= _VERSION_3:
        if len(head) <= _COMPRESSION_AT:
            raise CorruptError(f"the header of {name} is cut off")
        (features,) = _FEATURES.unpack_from(head, _FEATURES_AT)
        compression = head[_COMPRESSION_AT] if features & _COMPRESSION_TYPE else _ZLIB
    unknown = features & ~(_IGNORED | _COMPRESSION_TYPE | _EXTENDED_L2)
    if crypt or unknown or compression not in {_ZLIB, _ZSTD}:
        why = "is encrypted" if crypt else "has features that only QEMU can read"
        raise ImageError(f"{name} {why}", hint="Restore it, and let QEMU read it.")
    is_possible = _LEAST_BITS <= bits <= _MOST_BITS and version in {2, 3} and size_bytes < 1 << 62
    if not is_possible or 8 * l1_entries > _MOST_L1_BYTES or l1_place % _SECTOR:
        raise CorruptError(f"the header of {name} is impossible")
    is_extended = bool(features & _EXTENDED_L2)
    shape = Shape(size_bytes, 1 << bits, l1_place, l1_entries, is_extended, compression == _ZSTD)
    if shape.is_extended and shape.cluster < _SUBCLUSTERS * _SECTOR:
        raise CorruptError(f"the header of {name} is impossible")
    if l1_entries * shape.table_covers < size_bytes:
        raise CorruptError(f"the L1 table of {name} is too short")
    return shape


def numbers_in(table: bytes) -> "array[int]":
    """Return a table's numbers of 8 bytes."""
    numbers = array("Q", table)
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers


def table_place(entry: int) -> int:
    """Return where the L2 table of an L1 entry is; 0 if there is none."""
    return entry & _OFFSET_MASK


def parts_of(shape: Shape, table: "array[int] | None", offset: int, length: int) -> Iterator[Part]:
    """Yield the parts of a range that one L2 table is about, joined where they follow each other.

    Args:
        shape: the image's.
        table: the numbers of the L2 table; None if there is none.
        offset: where the range begins, in the disk.
        length: its length; it ends no later than the table's part of the disk.
    """
    if table is None:
        yield Part(Kind.BELOW, offset, length)
        return
    last: Part | None = None
    for part in _clusters(shape, table, offset, length):
        if last is not None and _follows(last, part):
            last = Part(last.kind, last.start, last.length + part.length, last.place)
        else:
            if last is not None:
                yield last
            last = part
    if last is not None:
        yield last


def _follows(one: Part, other: Part) -> bool:
    if one.kind is not other.kind or one.kind is Kind.COMPRESSED:
        return False
    return one.kind is not Kind.DATA or one.place + one.length == other.place


def _clusters(shape: Shape, table: "array[int]", offset: int, length: int) -> Iterator[Part]:
    cluster, end = shape.cluster, offset + length
    while offset < end:
        number = offset % shape.table_covers // cluster
        skipped = offset % cluster
        now = min(cluster - skipped, end - offset)
        entry = table[2 * number] if shape.is_extended else table[number]
        if entry & _COMPRESSED:
            yield _compressed(shape, entry, offset, now, skipped)
        elif shape.is_extended:
            yield from _subclusters(shape, entry, table[2 * number + 1], offset, now)
        else:
            yield _plain(entry, offset, now, skipped)
        offset += now


def _plain(entry: int, offset: int, length: int, skipped: int) -> Part:
    place = entry & _OFFSET_MASK
    if entry & _ALL_ZERO:
        return Part(Kind.ZERO, offset, length)
    if not place:
        return Part(Kind.BELOW, offset, length)
    return Part(Kind.DATA, offset, length, place + skipped)


def _subclusters(shape: Shape, entry: int, bitmap: int, offset: int, length: int) -> Iterator[Part]:
    size, end = shape.cluster // _SUBCLUSTERS, offset + length
    while offset < end:
        skipped = offset % shape.cluster
        number = skipped // size
        now = min(size - skipped % size, end - offset)
        if bitmap >> number & 1:
            yield Part(Kind.DATA, offset, now, (entry & _OFFSET_MASK) + skipped)
        elif bitmap >> _SUBCLUSTERS + number & 1:
            yield Part(Kind.ZERO, offset, now)
        else:
            yield Part(Kind.BELOW, offset, now)
        offset += now


def _compressed(shape: Shape, entry: int, offset: int, length: int, skipped: int) -> Part:
    bits = 62 - (shape.cluster.bit_length() - 1 - 8)
    place = entry & (1 << bits) - 1
    sectors = (entry & _COMPRESSED - 1) >> bits
    packed_bytes = (sectors + 1) * _SECTOR - place % _SECTOR
    return Part(Kind.COMPRESSED, offset, length, place, packed_bytes, skipped)

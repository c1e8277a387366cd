"""qcow2 written from front to back, and what a header says of other files.

::

    header | refcount table | refcount blocks | L1 table | L2 table | data | L2 table | data ...
             1 for each cluster of the file     of all     of 512 MiB of the disk, then its data

qemu-img can only write where it can go back. But where it is known before which parts of a disk are
data, all tables are known, and can come first. Used by ``front_to_back.py``; pure. The format is
that of QEMU's docs/interop/qcow2.txt, version 3, clusters of 64 KiB.
"""

import struct
import sys
from array import array
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final

from msgspec import Struct

from virtbackup_async.model.extent import Extent

HEAD_BYTES: Final = 64 * 1024
"""How much of an image must be looked at to know what other files it needs."""

_CLUSTER_BITS: Final = 16
_CLUSTER: Final = 1 << _CLUSTER_BITS
_TABLE_ENTRIES: Final = _CLUSTER // 8
_TABLE_SPAN: Final = _TABLE_ENTRIES * _CLUSTER
_COUNTS_A_BLOCK: Final = _CLUSTER // 2
_COPIED: Final = 1 << 63
_SECTOR: Final = 512
_MAGIC: Final = b"QFI\xfb"
_HEADER: Final = struct.Struct(">4sIQIIQIIQQIIQQQQII")
_EXTENSION: Final = struct.Struct(">II")
_DATA_FILE_NAME: Final = 0x44415441
_DATA_FILE: Final = 4
_VERSION: Final = 3

Run = tuple[int, int]


class Qcow2Layout:
    """Where everything is in a qcow2 image of a disk.

    Args of the constructor: the disk's length, and what of it is data.
    """

    def __init__(self, size_bytes: int, data: Iterable[Extent]) -> None:
        self.size_bytes = _whole(size_bytes, _SECTOR) * _SECTOR
        self._runs = list(_cluster_runs(data))
        tables = {table for table, _, _ in _by_table(self._runs)}
        clusters = sum(behind - first for first, behind in self._runs)
        l1_entries = _whole(self.size_bytes, _TABLE_SPAN)
        self._l1_entries = l1_entries
        self._l1_clusters = _whole(8 * l1_entries, _CLUSTER)
        fixed = 1 + self._l1_clusters + len(tables) + clusters
        self._blocks, self._block_tables = _refcounts_for(fixed)
        self._clusters = fixed + self._blocks + self._block_tables
        self._l1_offset = (1 + self._block_tables + self._blocks) * _CLUSTER

    def pieces(self) -> Iterator[bytes | Extent]:
        """Give what the file consists of, in order: tables, and which parts of the disk.

        The parts begin and end with clusters: the last one may reach over the disk's end.
        """
        yield self._header().ljust(_CLUSTER, b"\0")
        yield from self._refcounts()
        offset = self._l1_offset + self._l1_clusters * _CLUSTER
        yield self._l1_table(offset)
        for table, runs in self._tables():
            offset += _CLUSTER
            yield _l2_table(table, runs, offset)
            for first, behind in runs:
                yield Extent(first * _CLUSTER, (behind - first) * _CLUSTER)
                offset += (behind - first) * _CLUSTER

    def _tables(self) -> Iterator[tuple[int, list[Run]]]:
        for table, runs in groupby(_by_table(self._runs), key=lambda run: run[0]):
            yield table, [(first, behind) for _, first, behind in runs]

    def _header(self) -> bytes:
        refcount_order = 4  # two bytes each
        return _HEADER.pack(
            _MAGIC, _VERSION, 0, 0, _CLUSTER_BITS, self.size_bytes, 0, self._l1_entries,
            self._l1_offset, _CLUSTER, self._block_tables, 0, 0, 0, 0, 0, refcount_order,
            _HEADER.size,
        )  # fmt: skip

    def _refcounts(self) -> Iterator[bytes]:
        first = (1 + self._block_tables) * _CLUSTER
        offsets = range(first, first + self._blocks * _CLUSTER, _CLUSTER)
        yield _big_endian(offsets).ljust(self._block_tables * _CLUSTER, b"\0")
        for block in range(self._blocks):
            used = min(_COUNTS_A_BLOCK, self._clusters - block * _COUNTS_A_BLOCK)
            yield (b"\0\1" * used).ljust(_CLUSTER, b"\0")

    def _l1_table(self, offset: int) -> bytes:
        table = [0] * self._l1_entries
        for number, runs in self._tables():
            table[number] = offset | _COPIED
            offset += (1 + sum(behind - first for first, behind in runs)) * _CLUSTER
        return _big_endian(table).ljust(self._l1_clusters * _CLUSTER, b"\0")


class Qcow2Head(Struct, frozen=True):
    """What an image's header says that matters to dirty bitmaps.

    Attributes:
        version: 2, which ``qemu-img`` calls ``compat=0.10`` and keeps no bitmaps, or 3.
        has_backing: whether there is an image below it.
        snapshots: how many internal snapshots it holds.
        data_file: the file that its data is in; None: itself.
    """

    version: int
    has_backing: bool
    snapshots: int
    data_file: str | None


def read_head(head: bytes) -> Qcow2Head | None:
    """Return what the first ``HEAD_BYTES`` of an image say; None if it is no qcow2 image."""
    if len(head) < _HEADER.size or not head.startswith(_MAGIC):
        return None
    _, version, backing_offset, _, _, _, _, _, _, _, _, snapshots, *_ = _HEADER.unpack_from(head)
    data_file = file_beside(head, may_have_backing=True)
    return Qcow2Head(version, bool(backing_offset), snapshots, data_file)


def file_beside(head: bytes, *, may_have_backing: bool) -> str | None:
    """Return the name of another file that an image needs, as its header has it; None if none.

    Args:
        head: the first ``HEAD_BYTES`` of it, or all.
        may_have_backing: whether a backing file does not count.
    """
    if len(head) < _HEADER.size or not head.startswith(_MAGIC):
        return None
    _, version, backing_offset, backing_length, *_ = _HEADER.unpack_from(head)
    if backing_offset and not may_have_backing:
        return head[backing_offset : backing_offset + backing_length].decode(errors="replace")
    features, header_length = struct.unpack_from(">Q", head, 72)[0], _HEADER.unpack_from(head)[-1]
    if version >= _VERSION and features & _DATA_FILE:
        return _data_file(head, header_length)
    return None


def _data_file(head: bytes, offset: int) -> str:
    while offset + _EXTENSION.size <= len(head):
        kind, length = _EXTENSION.unpack_from(head, offset)
        offset += _EXTENSION.size
        if kind == _DATA_FILE_NAME:
            return head[offset : offset + length].decode(errors="replace")
        if not kind:
            break
        offset += _whole(length, 8) * 8
    return "a file for its data"


def _cluster_runs(data: Iterable[Extent]) -> Iterator[Run]:
    """Give runs of clusters that hold data: first, and before which."""
    first = behind = 0
    for extent in data:
        start, end = extent.start // _CLUSTER, _whole(extent.end, _CLUSTER)
        if start > behind:
            if first < behind:
                yield first, behind
            first = start
        behind = max(behind, end)
    if first < behind:
        yield first, behind


def _by_table(runs: Iterable[Run]) -> Iterator[tuple[int, int, int]]:
    """Cut runs so that each is in one L2 table; give the table's number with each."""
    for start, behind in runs:
        first = start
        while first < behind:
            table = first // _TABLE_ENTRIES
            end = min(behind, (table + 1) * _TABLE_ENTRIES)
            yield table, first, end
            first = end


def _l2_table(number: int, runs: Iterable[Run], offset: int) -> bytes:
    table = [0] * _TABLE_ENTRIES
    for first, behind in runs:
        length = behind - first
        at = first - number * _TABLE_ENTRIES
        start = offset | _COPIED
        table[at : at + length] = range(start, start + length * _CLUSTER, _CLUSTER)
        offset += length * _CLUSTER
    return _big_endian(table)


def _refcounts_for(clusters: int) -> tuple[int, int]:
    """Return how many refcount blocks, and clusters of their table, count these and themselves."""
    blocks = tables = 0
    while True:
        wanted = _whole(clusters + blocks + tables, _COUNTS_A_BLOCK)
        wanted_tables = _whole(8 * wanted, _CLUSTER)
        if (wanted, wanted_tables) == (blocks, tables):
            return blocks, tables
        blocks, tables = wanted, wanted_tables


def _big_endian(numbers: Iterable[int]) -> bytes:
    table = array("Q", numbers)
    if sys.byteorder == "little":
        table.byteswap()
    return table.tobytes()


def _whole(length: int, unit: int) -> int:
    """How many units hold so much."""
    return -(-length // unit)

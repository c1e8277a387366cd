"""Writes qcow2 images from front to back, and reads the header of an image.

::

    header | refcount table | refcount blocks | L1 table | L2 table | data | L2 table | data ...
             1 for each cluster of the file     of all     of 512 MiB of the disk, then its data

qemu-img must be able to seek back in its output. But if the data extents of a disk are known in
advance, all tables are known and can come first. Pure; ``images/sinks/sequential.py`` writes the
bytes. Format: QEMU's docs/interop/qcow2.txt.
"""

import struct
import sys
from array import array
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Final

from msgspec import Struct

from virtbackup_async.model.extent import Extent
from virtbackup_async.model.qcow2_options import Qcow2Options

HEAD_BYTES: Final = 64 * 1024
"""The part of an image that names the other files that it needs."""

_COPIED: Final = 1 << 63
_SECTOR: Final = 512
_MAGIC: Final = b"QFI\xfb"
_HEADER: Final = struct.Struct(">4sIQIIQIIQQIIQQQQII")
_OLD_HEADER_BYTES: Final = 72
_EXTENSION: Final = struct.Struct(">II")
_DATA_FILE_NAME: Final = 0x44415441
_DATA_FILE: Final = 4
_EXTENDED_L2: Final = 16
_LAZY_REFCOUNTS: Final = 1
_VERSION: Final = 3
_ALL_SUBCLUSTERS: Final = 0xFFFF_FFFF

Run = tuple[int, int]


_USUAL: Final = Qcow2Options()


class Qcow2Layout:
    """The layout of a qcow2 image of a disk.

    Args:
        size_bytes: the disk's length.
        data: its data extents, ascending.
        options: the cluster size and the features of the image.
    """

    def __init__(
        self, size_bytes: int, data: Iterable[Extent], options: Qcow2Options = _USUAL
    ) -> None:
        self._options = options
        self._cluster = cluster = options.cluster
        self.size_bytes = _whole(size_bytes, _SECTOR) * _SECTOR
        self._runs = list(_cluster_runs(data, cluster))
        tables = {table for table, _, _ in _by_table(self._runs, options.table_entries)}
        clusters = sum(behind - first for first, behind in self._runs)
        l1_entries = _whole(self.size_bytes, options.table_entries * cluster)
        self._l1_entries = l1_entries
        self._l1_clusters = _whole(8 * l1_entries, cluster)
        fixed = 1 + self._l1_clusters + len(tables) + clusters
        self._blocks, self._block_tables = _refcounts_for(fixed, options)
        self._clusters = fixed + self._blocks + self._block_tables
        self._l1_offset = (1 + self._block_tables + self._blocks) * cluster

    def pieces(self) -> Iterator[bytes | Extent]:
        """Yield the parts of the file in order: bytes of tables, and extents of the disk.

        Extents consist of whole clusters, so the last one can end after the disk's end.
        """
        cluster = self._cluster
        yield self._header().ljust(cluster, b"\0")
        yield from self._refcounts()
        offset = self._l1_offset + self._l1_clusters * cluster
        yield self._l1_table(offset)
        for table, runs in self._tables():
            offset += cluster
            yield self._l2_table(table, runs, offset)
            for first, behind in runs:
                yield Extent(first * cluster, (behind - first) * cluster)
                offset += (behind - first) * cluster

    def _tables(self) -> Iterator[tuple[int, list[Run]]]:
        in_tables = _by_table(self._runs, self._options.table_entries)
        for table, runs in groupby(in_tables, key=lambda run: run[0]):
            yield table, [(first, behind) for _, first, behind in runs]

    def _header(self) -> bytes:
        refcount_order = 4  # two bytes each
        options = self._options
        needed = _EXTENDED_L2 if options.extended_l2 else 0
        known = _LAZY_REFCOUNTS if options.lazy_refcounts else 0
        header = _HEADER.pack(
            _MAGIC, options.version, 0, 0, options.cluster_bits, self.size_bytes, 0,
            self._l1_entries, self._l1_offset, self._cluster, self._block_tables, 0, 0, needed,
            known, 0, refcount_order, _HEADER.size,
        )  # fmt: skip
        return header if options.version >= _VERSION else header[:_OLD_HEADER_BYTES]

    def _refcounts(self) -> Iterator[bytes]:
        cluster, counts = self._cluster, self._options.counts_a_block
        first = (1 + self._block_tables) * cluster
        offsets = range(first, first + self._blocks * cluster, cluster)
        yield _big_endian(offsets).ljust(self._block_tables * cluster, b"\0")
        for block in range(self._blocks):
            used = min(counts, self._clusters - block * counts)
            yield (b"\0\1" * used).ljust(cluster, b"\0")

    def _l1_table(self, offset: int) -> bytes:
        table = [0] * self._l1_entries
        for number, runs in self._tables():
            table[number] = offset | _COPIED
            offset += (1 + sum(behind - first for first, behind in runs)) * self._cluster
        return _big_endian(table).ljust(self._l1_clusters * self._cluster, b"\0")

    def _l2_table(self, number: int, runs: Iterable[Run], offset: int) -> bytes:
        entries, cluster = self._options.table_entries, self._cluster
        table = [0] * entries
        for first, behind in runs:
            length = behind - first
            at = first - number * entries
            start = offset | _COPIED
            table[at : at + length] = range(start, start + length * cluster, cluster)
            offset += length * cluster
        if self._options.extended_l2:
            table = [word for entry in table for word in (entry, _ALL_SUBCLUSTERS if entry else 0)]
        return _big_endian(table)


class Qcow2Head(Struct, frozen=True):
    """The fields of an image's header that matter for dirty bitmaps and for a similar image.

    Attributes:
        version: 2 (``compat=0.10`` for ``qemu-img``), which has no bitmaps, or 3.
        has_backing: whether it has a backing file.
        snapshots: the number of its internal snapshots.
        data_file: the external file with its data; None if the image itself has it.
        options: the cluster size and the features.
    """

    version: int
    has_backing: bool
    snapshots: int
    data_file: str | None
    options: Qcow2Options

    @property
    def layout(self) -> Qcow2Options | None:
        """The options for a similar image; None if this program cannot write one."""
        return self.options if self.options.can_be_written else None


def read_head(head: bytes) -> Qcow2Head | None:
    """Parse the first ``HEAD_BYTES`` of an image; None if it is not a qcow2 image."""
    if len(head) < _HEADER.size or not head.startswith(_MAGIC):
        return None
    _, version, backing_offset, _, cluster_bits, *rest = _HEADER.unpack_from(head)
    snapshots, needed, known = rest[6], rest[8], rest[9]
    is_new = version >= _VERSION
    options = Qcow2Options(
        version,
        cluster_bits,
        lazy_refcounts=is_new and bool(known & _LAZY_REFCOUNTS),
        extended_l2=is_new and bool(needed & _EXTENDED_L2),
    )
    data_file = file_beside(head, may_have_backing=True)
    return Qcow2Head(version, bool(backing_offset), snapshots, data_file, options)


def head_of(path: Path) -> Qcow2Head | None:
    """Read the header of an image; None if it cannot be read. Blocks."""
    try:
        with path.open("rb") as file:
            return read_head(file.read(HEAD_BYTES))
    except OSError:
        return None


def file_beside(head: bytes, *, may_have_backing: bool) -> str | None:
    """Return the name, from its header, of another file that an image needs; None if none.

    Args:
        head: the image's first ``HEAD_BYTES``, or all of a shorter one.
        may_have_backing: whether to ignore a backing file.
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


def _cluster_runs(data: Iterable[Extent], cluster: int) -> Iterator[Run]:
    """Yield runs of clusters with data: the first one, and the one after the last."""
    first = behind = 0
    for extent in data:
        start, end = extent.start // cluster, _whole(extent.end, cluster)
        if start > behind:
            if first < behind:
                yield first, behind
            first = start
        behind = max(behind, end)
    if first < behind:
        yield first, behind


def _by_table(runs: Iterable[Run], entries: int) -> Iterator[tuple[int, int, int]]:
    """Split runs at the ends of L2 tables; yield the table's number with each part."""
    for start, behind in runs:
        first = start
        while first < behind:
            table = first // entries
            end = min(behind, (table + 1) * entries)
            yield table, first, end
            first = end


def _refcounts_for(clusters: int, options: Qcow2Options) -> tuple[int, int]:
    """Return how many refcount blocks and table clusters cover ``clusters`` and themselves."""
    blocks = tables = 0
    while True:
        wanted = _whole(clusters + blocks + tables, options.counts_a_block)
        wanted_tables = _whole(8 * wanted, options.cluster)
        if (wanted, wanted_tables) == (blocks, tables):
            return blocks, tables
        blocks, tables = wanted, wanted_tables


def _big_endian(numbers: Iterable[int]) -> bytes:
    table = array("Q", numbers)
    if sys.byteorder == "little":
        table.byteswap()
    return table.tobytes()


def _whole(length: int, unit: int) -> int:
    """Return how many units hold ``length``."""
    return -(-length // unit)

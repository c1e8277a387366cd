"""Devices over the images of a package: a raw image, and a qcow2 image with those below it.

A qcow2 image is read here, not by QEMU: its tables come from a guest's disk, or from a target that
others may write to, and QEMU would be a process more for each disk. Tables and decompressed
clusters are kept, as many as fit into a fixed amount of memory.
"""

import zlib
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Final, Generic, TypeVar

import zstandard
from anyio import to_thread

from virtbackup_async.errors import CorruptError
from virtbackup_async.model.extent import Extent
from virtbackup_async.nbd.server.device import DataMap, Device, data_map
from virtbackup_async.packagers.interface import RandomAccess
from virtbackup_async.qemu.qcow2 import HEAD_BYTES
from virtbackup_async.qemu.qcow2_map import (
    Kind,
    Part,
    Shape,
    numbers_in,
    parts_of,
    shape_of,
    table_place,
)

_KEPT_BYTES: Final = 8 << 20
_TABLES_AT_ONCE: Final = 16
_DEFLATE_BITS: Final = -15

V = TypeVar("V")


class ImageDevice:
    """A raw image as a device."""

    def __init__(self, image: RandomAccess, extents: Sequence[Extent]) -> None:
        self.size_bytes = image.size_bytes
        self._image = image
        self._extents = extents
        self._starts = [extent.start for extent in extents]

    async def read(self, offset: int, length: int) -> bytes:
        return await self._image.read(offset, length)

    async def data_in(self, offset: int, length: int, most: int) -> DataMap:
        first = max(0, bisect_right(self._starts, offset) - 1)
        following = (self._extents[at] for at in range(first, len(self._extents)))
        return data_map(offset, length, following, most)


class Qcow2Device:
    """The disk of a qcow2 image, with the one below it; ``open_qcow2`` makes it."""

    def __init__(self, name: str, image: RandomAccess, shape: Shape, below: Device | None) -> None:
        self.size_bytes = shape.size_bytes
        self._name = name
        self._image = image
        self._shape = shape
        self._below = below
        self._l1: array[int] = array("Q")
        self._tables: _Kept[array[int]] = _Kept(max(2, _KEPT_BYTES // shape.cluster))
        self._clusters: _Kept[bytes] = _Kept(max(2, _KEPT_BYTES // shape.cluster))

    async def read_l1(self) -> None:
        """Read the L1 table; call it once, before all others."""
        shape = self._shape
        data = await self._bytes(shape.l1_place, 8 * shape.l1_entries)
        self._l1 = numbers_in(data)

    async def read(self, offset: int, length: int) -> bytes:
        pieces = [
            await self._content(part)
            for start, now in self._by_table(offset, length)
            for part in parts_of(self._shape, await self._table(start), start, now)
        ]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def data_in(self, offset: int, length: int, most: int) -> DataMap:
        data: list[Extent] = []
        end = offset
        for number, (start, now) in enumerate(self._by_table(offset, length)):
            if number == _TABLES_AT_ONCE:
                break
            for part in parts_of(self._shape, await self._table(start), start, now):
                known = await self._data_of(part, most)
                data += known.data
                end = known.end
                if len(data) > most or known.end < part.start + part.length:
                    return data_map(offset, end - offset, data, most)
        return data_map(offset, end - offset, data, most)

    async def _data_of(self, part: Part, most: int) -> DataMap:
        end = part.start + part.length
        if part.kind in {Kind.DATA, Kind.COMPRESSED}:
            return DataMap([Extent(part.start, part.length)], end)
        within = 0 if self._below is None else min(end, self._below.size_bytes) - part.start
        if part.kind is Kind.ZERO or self._below is None or within <= 0:
            return DataMap([], end)
        known = await self._below.data_in(part.start, within, most)
        return DataMap(known.data, end) if known.end == part.start + within else known

    async def _content(self, part: Part) -> bytes:
        if part.kind is Kind.DATA:
            return await self._bytes(part.place, part.length)
        if part.kind is Kind.COMPRESSED:
            cluster = await self._decompressed(part)
            return cluster[part.skipped : part.skipped + part.length]
        within = 0 if self._below is None else self._below.size_bytes - part.start
        if part.kind is Kind.ZERO or self._below is None or within <= 0:
            return bytes(part.length)
        data = await self._below.read(part.start, min(part.length, within))
        return data.ljust(part.length, b"\0")

    async def _bytes(self, place: int, length: int) -> bytes:
        """Return bytes of the image; those past its end are zeros, as in the last cluster."""
        here = min(length, self._image.size_bytes - place)
        if here <= 0:
            raise CorruptError(f"{self._name} refers to bytes behind its end")
        return (await self._image.read(place, here)).ljust(length, b"\0")

    async def _table(self, offset: int) -> "array[int] | None":
        place = table_place(self._l1[offset // self._shape.table_covers])
        if not place:
            return None
        table = self._tables.get(place)
        if table is None:
            table = numbers_in(await self._bytes(place, self._shape.cluster))
            self._tables.put(place, table)
        return table

    async def _decompressed(self, part: Part) -> bytes:
        cluster = self._clusters.get(part.place)
        if cluster is None:
            most = self._image.size_bytes - part.place
            packed = await self._bytes(part.place, max(1, min(part.packed_bytes, most)))
            unpack = _unzstd if self._shape.is_zstd else _inflate
            cluster = await to_thread.run_sync(unpack, packed, self._shape.cluster)
            if len(cluster) != self._shape.cluster:
                raise CorruptError(f"a compressed cluster of {self._name} is damaged")
            self._clusters.put(part.place, cluster)
        return cluster

    def _by_table(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """Split a range at the ends of L2 tables."""
        covers, end = self._shape.table_covers, offset + length
        while offset < end:
            now = min(end, (offset // covers + 1) * covers) - offset
            yield offset, now
            offset += now


async def open_qcow2(name: str, image: RandomAccess, below: Device | None) -> Qcow2Device:
    """Open the disk of a qcow2 image.

    Args:
        name: of the image, for messages.
        image: its bytes.
        below: the disk of its backing file; None without one.

    Raises:
        CorruptError: it is no qcow2 image, or a damaged one.
        ImageError: only QEMU can read it.
    """
    head = await image.read(0, min(HEAD_BYTES, image.size_bytes))
    device = Qcow2Device(name, image, shape_of(head, name), below)
    await device.read_l1()
    return device


class _Kept(Generic[V]):
    """The values that were used last, so many of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[int, V] = OrderedDict()

    def get(self, key: int) -> V | None:
        if key in self._values:
            self._values.move_to_end(key)
        return self._values.get(key)

    def put(self, key: int, value: V) -> None:
        self._values[key] = value
        if len(self._values) > self._most:
            self._values.popitem(last=False)


def _inflate(packed: bytes, length: int) -> bytes:
    try:
        return zlib.decompressobj(_DEFLATE_BITS).decompress(packed, length)
    except zlib.error:
        return b""


def _unzstd(packed: bytes, length: int) -> bytes:
    try:
        with zstandard.ZstdDecompressor().stream_reader(packed) as reader:
            return reader.read(length)
    except zstandard.ZstdError:
        return b""

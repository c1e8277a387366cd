"""The chunks that a map needs, and the lost ranges of its image.

Called by ``verify`` and ``repair``. Invariant: the result is bounded, however much is lost.
"""

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
from msgspec import Struct

from virtbackup_async.errors import CorruptError
from virtbackup_async.images.digest import ImageDigest
from virtbackup_async.images.extents import PAGE_BYTES
from virtbackup_async.model.amounts import length_compared
from virtbackup_async.model.extent import Extent
from virtbackup_async.repository.check.check import Check, OnStep
from virtbackup_async.repository.data.maps import ChunkMap, add_leaves, check_owner, open_map
from virtbackup_async.repository.format.chunks import CHUNK_BYTES, extents_of, length_of
from virtbackup_async.repository.format.map_format import Entries, MapEntry
from virtbackup_async.repository.index.id_batches import IDS_AT_ONCE, IdField, batches
from virtbackup_async.repository.storage.layout import Repository

MAX_RANGES: Final = 64


class MapFacts(Struct, frozen=True):
    """Facts about a map that was read in full.

    Attributes:
        data_bytes: the data of the image, without holes.
        missing: the number of its chunks that the index lacks.
        digest: of the image; it follows from the leaves.
    """

    data_bytes: int
    missing: int
    digest: str


class LostRanges(Struct, frozen=True):
    """The lost ranges of an image.

    Attributes:
        lost_bytes: their total length.
        ranges: the first ``MAX_RANGES`` of them, ascending.
        more_ranges: the number of further ranges.
    """

    lost_bytes: int = 0
    ranges: tuple[Extent, ...] = ()
    more_ranges: int = 0


def need_map(
    repository: Repository,
    name: str,
    checking: Check,
    on_step: OnStep,
    recorded_bytes: int | None = None,
) -> MapFacts:
    """Ask for all chunks of a map. Blocks.

    Args:
        repository: the map has to belong to it.
        name: of the map's file.
        checking: is asked for the chunks.
        on_step: called often; may raise.
        recorded_bytes: the recorded length of its image, if that is known.

    Raises:
        CorruptError: the map is damaged, or of another image.
        ForeignRepositoryError: it belongs to another repository.
        FileNotFoundError: it is missing.
    """
    chunk_map = open_map(repository.storage, name)
    try:
        size_bytes = chunk_map.head.size_bytes
        check_owner(chunk_map, repository)
        if recorded_bytes is not None and recorded_bytes != size_bytes:
            raise CorruptError(
                f"the image of {chunk_map.where} is {length_compared(size_bytes, recorded_bytes)}"
            )
        digest = ImageDigest(size_bytes)
        data_bytes = 0

        ids_of = repository.sealing.ids_of

        def read() -> Iterator[IdField]:
            nonlocal data_bytes
            for block in chunk_map.blocks():
                on_step()
                data_bytes += _data_bytes(block, size_bytes)
                add_leaves(digest, block)
                yield ids_of(block["leaf"])

        missing = sum(map(checking.need, batches(read(), IDS_AT_ONCE)))
    finally:
        chunk_map.close()
    return MapFacts(data_bytes, missing, digest.finish())


def lost_ranges_of(
    repository: Repository, name: str, checking: Check, on_step: OnStep
) -> LostRanges:
    """Return the lost ranges of a map's image, after all chunks were checked. Blocks.

    Raises:
        CorruptError: the map is damaged.
        FileNotFoundError: it is missing.
    """
    chunk_map = open_map(repository.storage, name)
    try:
        return _bounded(_lost_extents(repository, chunk_map, checking, on_step))
    finally:
        chunk_map.close()


def _lost_extents(
    repository: Repository, chunk_map: ChunkMap, checking: Check, on_step: OnStep
) -> Iterator[Extent]:
    size_bytes, ids_of = chunk_map.head.size_bytes, repository.sealing.ids_of
    numbers = []

    def read() -> Iterator[IdField]:
        for block in chunk_map.blocks():
            on_step()
            numbers.append(block["number"].copy())
            yield ids_of(block["leaf"])

    for ids in batches(read(), IDS_AT_ONCE):
        for number in np.concatenate(numbers)[checking.lost(ids)].tolist():
            yield Extent(number * CHUNK_BYTES, length_of(number, size_bytes))
        numbers.clear()


def _bounded(lost: Iterable[Extent]) -> LostRanges:
    """Join adjacent extents, and keep the first ones."""
    lost_bytes, more = 0, 0
    ranges: list[Extent] = []
    last_end = -1
    for extent in lost:
        lost_bytes += extent.length
        if extent.start == last_end:
            if not more:
                ranges[-1] = Extent(ranges[-1].start, ranges[-1].length + extent.length)
        elif len(ranges) < MAX_RANGES:
            ranges.append(extent)
        else:
            more += 1
        last_end = extent.end
    return LostRanges(lost_bytes, tuple(ranges), more)


def _data_bytes(block: Entries, size_bytes: int) -> int:
    """Return how many bytes of the chunks are data: 4 KiB for each bit of their pages."""
    last = MapEntry(*block[-1].item())
    pages = int(np.bitwise_count(block["pages"][:-1]).sum(dtype=np.int64))
    # The end of an image cuts its last page.
    at_end = extents_of(last.number, last.pages, size_bytes)
    return pages * PAGE_BYTES + sum(extent.length for extent in at_end)

"""What a map needs, and what of its image is lost: the maps' side of a check.

Called by ``verify`` and ``repair`` beside ``checking``. Invariant: what comes out is bounded,
however much is lost.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct

from virtbackup_async.errors import CorruptError
from virtbackup_async.images.digest import ImageDigest
from virtbackup_async.model.extent import Extent
from virtbackup_async.repository.checking import Checking, OnStep
from virtbackup_async.repository.chunk_maps import ChunkMap, open_map
from virtbackup_async.repository.chunks import CHUNK_BYTES, ID_BYTES, extents_of, length_of
from virtbackup_async.repository.layout import Repository
from virtbackup_async.repository.lookup import IDS_AT_ONCE
from virtbackup_async.repository.map_format import MapEntry

MAX_RANGES: Final = 64
_STEP_BYTES: Final = 1 << 15


class MapFacts(Struct, frozen=True):
    """What a map says, all of it having been read.

    Attributes:
        data_bytes: what of the image is not hole.
        missing: how many of its chunks the index does not know.
        digest: the image's, which follows from the ids of its chunks.
    """

    data_bytes: int
    missing: int
    digest: str


class Losses(Struct, frozen=True):
    """What of an image is lost.

    Attributes:
        lost_bytes: how much in all.
        ranges: where, ascending; the first ``MAX_RANGES`` of them.
        more_ranges: how many there are beyond these.
    """

    lost_bytes: int = 0
    ranges: tuple[Extent, ...] = ()
    more_ranges: int = 0


def need_map(
    path: Path,
    repository: Repository,
    checking: Checking,
    on_step: OnStep,
    recorded_bytes: int | None = None,
) -> MapFacts:
    """Ask for all chunks of a map. Blocks.

    Args:
        path: the map.
        repository: what it has to belong to.
        checking: asked.
        on_step: called often; what it raises ends this.
        recorded_bytes: how long its image has to be, if that is known.

    Raises:
        CorruptError: the map is damaged, or another one.
        FileNotFoundError: it is not there.
    """
    chunk_map = open_map(path)
    try:
        size_bytes = chunk_map.head.size_bytes
        check_owner(chunk_map, repository)
        if recorded_bytes not in {None, size_bytes}:
            raise CorruptError(
                f"the image of {path} is {size_bytes} bytes long, {recorded_bytes} were recorded"
            )
        digest = ImageDigest(size_bytes)
        data_bytes = missing = 0

        def take_in(entry: MapEntry) -> None:
            nonlocal data_bytes
            digest.add(entry.number * CHUNK_BYTES, entry.id)
            extents = extents_of(entry.number, entry.pages, size_bytes)
            data_bytes += sum(extent.length for extent in extents)

        for ids in _batches(chunk_map, take_in, on_step):
            missing += checking.need(ids)
    finally:
        chunk_map.close()
    return MapFacts(data_bytes, missing, digest.finish())


def losses_of(path: Path, checking: Checking, on_step: OnStep) -> Losses:
    """Find what of a map's image cannot be read, all being checked. Blocks.

    Raises:
        CorruptError: the map is damaged.
        FileNotFoundError: it is not there.
    """
    chunk_map = open_map(path)
    try:
        return _bounded(_lost_extents(chunk_map, checking, on_step))
    finally:
        chunk_map.close()


def check_owner(chunk_map: ChunkMap, repository: Repository) -> None:
    """See that a map is one of this repository.

    Raises:
        CorruptError: it is not.
    """
    if chunk_map.head.repository_id != repository.id:
        raise CorruptError(
            f"{chunk_map.path} belongs to another repository",
            hint="Copy a target as a whole, its repository included.",
        )


def _lost_extents(chunk_map: ChunkMap, checking: Checking, on_step: OnStep) -> Iterator[Extent]:
    size_bytes = chunk_map.head.size_bytes
    numbers = array("Q")
    for ids in _batches(chunk_map, lambda entry: numbers.append(entry.number), on_step):
        for place in checking.lost(ids):
            yield Extent(numbers[place] * CHUNK_BYTES, length_of(numbers[place], size_bytes))
        del numbers[:]


def _bounded(lost: Iterable[Extent]) -> Losses:
    """Join what is side by side, and keep the first of it."""
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
    return Losses(lost_bytes, tuple(ranges), more)


def _batches(
    chunk_map: ChunkMap, take_in: Callable[[MapEntry], None], on_step: OnStep
) -> Iterator[bytearray]:
    """Give the ids of a map, as many as are looked up at once; each entry is taken in before."""
    ids = bytearray()
    for entry in chunk_map.entries():
        take_in(entry)
        ids += entry.id
        if len(ids) % _STEP_BYTES == 0:
            on_step()
        if len(ids) == IDS_AT_ONCE * ID_BYTES:
            yield ids
            ids = bytearray()
    if ids:
        yield ids

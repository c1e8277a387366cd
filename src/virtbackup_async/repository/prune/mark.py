"""Mark the chunks that the maps of a target need: the first half of a prune.

::

    map of Monday    | a | b | c |        all chunks are looked up
    map of Tuesday   | a | x | c |        same disk: only the chunks that differ
    gathered         a b c x ...          one pass over the index for many maps

Memory: the gathered ids, 70 MB at most, and a byte for each record of the index.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Final, NamedTuple

import numpy as np

from virtbackup_async.errors import REPAIR_HINT, CorruptError
from virtbackup_async.repository.data.known_damage import read_known_damage, readable_leaves
from virtbackup_async.repository.data.maps import ChunkMap, check_owner, open_map
from virtbackup_async.repository.format import index_format as wire
from virtbackup_async.repository.format.chunks import ID_BYTES
from virtbackup_async.repository.index.id_batches import (
    IDS_AT_ONCE,
    IdBatch,
    IdField,
    Ids,
    batches,
)
from virtbackup_async.repository.index.lookup import NOWHERE, SortedIds, find_all, mark_records
from virtbackup_async.repository.index.segments import Index, Location, Segment
from virtbackup_async.repository.storage.layout import Repository

_ID: Final = np.dtype((np.void, ID_BYTES))


class Need(NamedTuple):
    """The needed chunks of a pack."""

    chunks: int
    length_bytes: int


NOTHING: Final = Need(0, 0)


class Marks:
    """A flag for each record of an index: whether its chunk is needed there. A byte a chunk.

    Of a chunk that is in the index twice one place is marked: one outside of the packs that are
    ``going`` if there is any, else that in the first segment. The next prune may find the segments
    in another order, and so a pack that is mostly unneeded where this one found none.
    """

    def __init__(self, index: Index, going: frozenset[bytes] = frozenset()) -> None:
        self._index = index
        self._going = going
        self._flags = [np.zeros(segment.shape.records, np.bool_) for segment in index.segments]

    def mark(self, ids: Ids) -> list[int]:
        """Mark chunks as needed. Blocks.

        Returns:
            The places of those among ``ids`` that the index does not know, ascending.
        """
        unknown = mark_records(self._index, self._flags, ids, self._going, everywhere=False)
        return sorted(unknown.tolist())

    def needed(self) -> dict[bytes, Need]:
        """Return the needed chunks of each pack; packs without any are omitted."""
        needs: dict[bytes, Need] = {}
        for segment, records in self._needed_records():
            chunks = np.bincount(records["pack"], minlength=len(segment.packs))
            lengths = np.bincount(records["pack"], records["length"], len(segment.packs))
            for number in np.flatnonzero(chunks):
                pack = segment.packs[number]
                before = needs.get(pack, NOTHING)
                needs[pack] = Need(
                    before.chunks + int(chunks[number]), before.length_bytes + int(lengths[number])
                )
        return needs

    def places(self, packs: frozenset[bytes]) -> Iterator[tuple[bytes, Location]]:
        """Yield the needed chunks of some packs in their order; all are held in memory."""
        places = []
        for segment, records in self._needed_records():
            is_there = np.array([pack in packs for pack in segment.packs], dtype=np.bool_)
            for record in records[is_there[records["pack"]]]:
                pack = segment.packs[record["pack"]]
                location = Location(pack, int(record["offset"]), int(record["length"]))
                places.append((location, record["id"].tobytes()))
        for location, id_ in sorted(places):
            yield id_, location

    def places_beside(self, packs: frozenset[bytes]) -> Iterator[tuple[bytes, Location]]:
        """Yield each needed chunk that some packs have as well, with the location marked for it.

        That location is in another pack, and has not been read yet.
        """
        for ids in batches(self._unneeded_ids(packs), IDS_AT_ONCE):
            wanted = SortedIds(ids)
            for segment, flags in zip(self._index.segments, self._flags, strict=True):
                found = find_all(segment, wanted, packs)
                found = found[found != NOWHERE]
                for number in found[flags[found]]:
                    record = segment.read_records(int(number), int(number) + 1)[0]
                    pack = segment.packs[record["pack"]]
                    location = Location(pack, int(record["offset"]), int(record["length"]))
                    yield record["id"].tobytes(), location

    def _unneeded_ids(self, packs: frozenset[bytes]) -> Iterator[IdField]:
        for segment, flags in zip(self._index.segments, self._flags, strict=True):
            is_among = np.array([pack in packs for pack in segment.packs], dtype=np.bool_)
            if not is_among.any():
                continue
            for first, end in segment.parts():
                records = segment.read_records(first, end)
                ids = records["id"][is_among[records["pack"]] & ~flags[first:end]]
                yield np.ascontiguousarray(ids).view(_ID)[:, 0]

    def _needed_records(self) -> Iterator[tuple[Segment, wire.Records]]:
        for segment, flags in zip(self._index.segments, self._flags, strict=True):
            for first, end in segment.parts():
                if flags[first:end].any():
                    yield segment, segment.read_records(first, end)[flags[first:end]]


def mark_all(
    maps: Iterable[str], repository: Repository, marks: Marks, on_step: Callable[[], None]
) -> None:
    """Mark the chunks that maps need. Blocks.

    Args:
        maps: the names of all maps of a target. They must have been listed before the index was
            opened, which does not know the chunks of a map that has come since.
        repository: the repository of the maps.
        marks: of its index.
        on_step: called often; may raise.

    Raises:
        CorruptError: a map is damaged or the index lacks a chunk of it, and ``repair`` has not
            recorded that. Nothing may be removed then: it is not known which chunks are needed.
        StorageError: a directory cannot be read.
    """
    gathered = _Gathered(repository, marks, on_step)
    try:
        for name in maps:
            # Its backup may have been removed since the maps were listed.
            with suppress(FileNotFoundError):
                gathered.take(name)
        gathered.look_up()
        gathered.refuse_missing()
    finally:
        gathered.close()


class _Gathered:
    """The ids of several maps, looked up together; ``close`` it."""

    def __init__(self, repository: Repository, marks: Marks, on_step: Callable[[], None]) -> None:
        self._repository = repository
        self._ids_of = repository.sealing.ids_of
        self._marks = marks
        self._on_step = on_step
        self._batch = IdBatch(IDS_AT_ONCE)
        self._starts: list[tuple[int, str]] = []
        self._last: ChunkMap | None = None
        self._known = read_known_damage(repository.storage)
        self._missing: Counter[str] = Counter()

    def take(self, name: str) -> None:
        """Gather the ids of a map; all readable ones if it is known to be damaged."""
        known = self._known.of(self._repository.storage, name)
        if known is None or not known.is_damaged:
            try:
                self._take_whole(name)
            except CorruptError as error:
                raise error.reworded(error.message, REPAIR_HINT) from error
        else:
            self._starts.append((len(self._batch), name))
            self._batch.add(self._ids_of(readable_leaves(self._repository.storage, name)))

    def _take_whole(self, name: str) -> None:
        """Gather the ids of a map, except those that the map before has at the same place."""
        chunk_map = open_map(self._repository.storage, name)
        before, self._last = self._last, chunk_map
        try:
            check_owner(chunk_map, self._repository)
            self._starts.append((len(self._batch), name))
            for block in chunk_map.blocks():
                self._on_step()
                new = block if before is None else block[~before.has(block)]
                self._batch.add(self._ids_of(new["leaf"]))
                if self._batch.is_full:
                    self.look_up()
                    self._starts.append((0, name))
        finally:
            if before is not None:
                before.close()

    def look_up(self) -> None:
        """Mark the gathered ids, and count the unknown ones for each map."""
        starts = [start for start, _ in self._starts]
        for place in self._marks.mark(self._batch.ids):
            self._missing[self._starts[bisect_right(starts, place) - 1][1]] += 1
        self._batch.clear()
        self._starts.clear()

    def refuse_missing(self) -> None:
        """Check that no more chunks are missing than ``repair`` recorded.

        Raises:
            CorruptError: more are.
        """
        storage = self._repository.storage
        for name, count in self._missing.items():
            # A map that is gone by now needs nothing any more.
            with suppress(FileNotFoundError):
                known = self._known.of(storage, name)
                if known is None or count > known.missing:
                    where = storage.where(name)
                    raise CorruptError(
                        f"{count} chunks of {where} are missing in {self._repository.where}",
                        hint=REPAIR_HINT,
                    )

    def close(self) -> None:
        if self._last is not None:
            self._last.close()

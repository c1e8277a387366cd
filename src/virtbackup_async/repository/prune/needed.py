"""Which chunks are needed: a flag for each record of the index.

Set by ``marks.py`` as it reads the maps, asked by the prune. Where a chunk is in the index twice,
one place is marked: one outside of the packs that are ``going`` if there is any, else that in the
first segment. The next prune may find the segments in another order, and with it a pack that is
mostly dead where this one found none. Memory: a byte a chunk.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from virtbackup_async.repository.format import index_format as wire
from virtbackup_async.repository.format.chunks import ID_BYTES
from virtbackup_async.repository.index.id_batches import IDS_AT_ONCE, IdField, Ids, batches
from virtbackup_async.repository.index.lookup import NOWHERE, SortedIds, find_all
from virtbackup_async.repository.index.segments import Index, Location, Segment

_RECORDS_AT_ONCE: Final = 1 << 18
_ID: Final = np.dtype((np.void, ID_BYTES))


class Need(NamedTuple):
    """What is needed of a pack."""

    chunks: int
    length_bytes: int


NOTHING: Final = Need(0, 0)


class Marks:
    """The marks on an index; what is in packs that are ``going`` counts if it is nowhere else."""

    def __init__(self, index: Index, going: frozenset[bytes] = frozenset()) -> None:
        self._index = index
        self._going = going
        self._flags = [np.zeros(segment.shape.records, np.bool_) for segment in index.segments]

    def mark(self, ids: Ids) -> list[int]:
        """Mark chunks as needed. Blocks.

        Returns:
            The places of those among ``ids`` that the index does not know, ascending.
        """
        wanted = SortedIds(ids)
        for avoid in (self._going, frozenset[bytes]()):
            for segment, flags in zip(self._index.segments, self._flags, strict=True):
                found = find_all(segment, wanted, avoid)
                flags[found[found != NOWHERE]] = True
                wanted.keep(found == NOWHERE)
        return sorted(int(place) for place in wanted.places)

    def needed(self) -> dict[bytes, Need]:
        """Return what is needed of each pack; packs of which nothing is, are missing."""
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
        """Give what is needed of some packs, as it lies there; all of it is in memory at once."""
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
        """Give each needed chunk that some packs have as well, with the place marked for it.

        That place is in another pack, and nobody has read what is there.
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
            for first in range(0, segment.shape.records, _RECORDS_AT_ONCE):
                end = min(first + _RECORDS_AT_ONCE, segment.shape.records)
                records = segment.read_records(first, end)
                ids = records["id"][is_among[records["pack"]] & ~flags[first:end]]
                yield np.ascontiguousarray(ids).view(_ID)[:, 0]

    def _needed_records(self) -> Iterator[tuple[Segment, wire.Records]]:
        for segment, flags in zip(self._index.segments, self._flags, strict=True):
            for first in range(0, segment.shape.records, _RECORDS_AT_ONCE):
                end = min(first + _RECORDS_AT_ONCE, segment.shape.records)
                if flags[first:end].any():
                    yield segment, segment.read_records(first, end)[flags[first:end]]

"""Look up very many ids at once, in one pass over the index instead of a read for each id.

::

    ids       sorted by their first bits, each with the place it had
    segment   |   stretch   |      |  stretch  |       read only where there are ids for it
    both      compared by those bits; equal ones are compared in full

Called by the writer for the chunks of an earlier map, and by the prune and ``verify`` for those of
all maps. Memory: some 20 bytes for each id in addition to the ids, and a stretch of the index for
each thread. Most of the time is spent in numpy, so threads work in parallel.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from virtbackup_async.concurrency import CPU_THREADS, open_cpu_threads
from virtbackup_async.errors import CorruptError
from virtbackup_async.repository.format import index_format as wire
from virtbackup_async.repository.index.id_batches import ID_WORDS, IdField, Ids, batches
from virtbackup_async.repository.index.segments import Index, Segment

NOWHERE: Final = -1
# Both ids and records are handled in parts that fit into the processor's cache.
_MOST_OF_A_STRETCH: Final = 1 << 14
# Reading so many unwanted records takes as long as another read.
_GAP_RECORDS: Final = 1 << 12
# Callers of ``are_missing`` have little else in memory; 10 TB have four times as many chunks.
_MISSING_AT_ONCE: Final = 10 << 20

Numbers = NDArray[np.int64]
Keys = NDArray[np.uint64]


class SortedIds:
    """Some ids, sorted by their first bits.

    ::

        | first bits of an id: its key | its place |     one number: sorted without moving an id
    """

    def __init__(self, ids: Ids) -> None:
        """Sort ids, which must not change while this object is used."""
        self._ids = ids
        self._place_mask = np.uint64((1 << len(ids).bit_length()) - 1)
        self._order: Keys = ids[:, 0].view(">u8").astype(np.uint64)
        self._order &= ~self._place_mask
        self._order |= np.arange(len(ids), dtype=np.uint64)
        self._order.sort()

    def __len__(self) -> int:
        return len(self._order)

    @property
    def places(self) -> Numbers:
        """The place that each of the sorted ids had before."""
        return self.places_of(0, len(self))

    def places_of(self, first: int, end: int) -> Numbers:
        """Return the places that some of the sorted ids had before."""
        return (self._order[first:end] & self._place_mask).astype(np.int64)

    def keys_of(self, first: int, end: int) -> Keys:
        """Return the keys of some of the sorted ids."""
        return self.key_parts(self._order[first:end])

    def key_parts(self, numbers: Keys) -> Keys:
        """Return the bits of ids' first 8 bytes that can be compared with a key."""
        return numbers & ~self._place_mask

    def words(self, places: Numbers) -> Ids:
        """Return the ids that had these places."""
        return self._ids.take(places, axis=0)

    def keep(self, which: NDArray[np.bool_]) -> None:
        """Keep only the chosen ids."""
        self._order = self._order[which]


class _Stretch(NamedTuple):
    """Some ids, and the only records of a segment that can be theirs."""

    first_id: int
    end_id: int
    first_record: int
    end_record: int


class _Search(NamedTuple):
    """Looks for ids in a segment, and notes the numbers of their records.

    Attributes:
        counts: for each pack of the segment, whether its chunks count.
        found: for each id, the number of its record.
    """

    segment: Segment
    ids: SortedIds
    counts: NDArray[np.bool_]
    found: Numbers

    def look(self, first: int, end: int) -> None:
        """Look for some of the ids; different threads may look for different ids."""
        for stretch in self._stretches(first, end):
            self._match(stretch)

    def _stretches(self, first: int, end: int) -> Iterator[_Stretch]:
        """Halve the range of ids until most of the records to be read for it are useful."""
        count = end - first
        if not count:
            return
        lowest, highest = self.ids.keys_of(first, end)[[0, -1]].tolist()
        first_record, end_record = self.segment.records_between(lowest, highest)
        records = end_record - first_record
        is_short = max(count, records) <= _MOST_OF_A_STRETCH
        if count == 1 or (is_short and records <= count * _GAP_RECORDS):
            yield _Stretch(first, end, first_record, end_record)
        else:
            middle = (first + end) // 2
            yield from self._stretches(first, middle)
            yield from self._stretches(middle, end)

    def _match(self, stretch: _Stretch) -> None:
        records = self.segment.read_records(stretch.first_record, stretch.end_record)
        keys = wire.keys_of(records)
        wanted = self.ids.keys_of(stretch.first_id, stretch.end_id)
        places = self.ids.places_of(stretch.first_id, stretch.end_id)
        at = np.searchsorted(keys, wanted)
        open_ids = self._still_equal(keys, wanted, at, np.arange(len(wanted)))
        # Mostly one round; more if ids differ only after those bits, or occur twice.
        while len(open_ids):
            candidates = records.take(at.take(open_ids))
            is_same = _are_same(candidates, self.ids.words(places.take(open_ids)))
            is_same &= self._count(candidates)
            hits = open_ids[is_same]
            self.found[stretch.first_id + hits] = stretch.first_record + at.take(hits)
            open_ids = open_ids[~is_same]
            at[open_ids] += 1
            open_ids = self._still_equal(keys, wanted, at, open_ids)

    def _still_equal(self, keys: Keys, wanted: Keys, at: Numbers, which: Numbers) -> Numbers:
        inside: Numbers = which[at.take(which) < len(keys)]
        parts = self.ids.key_parts(keys.take(at.take(inside)))
        is_equal: NDArray[np.bool_] = parts == wanted.take(inside)
        return inside[is_equal]

    def _count(self, records: wire.Records) -> NDArray[np.bool_]:
        packs = records["pack"]
        if int(packs.max()) >= len(self.counts):
            raise CorruptError(
                f"index is damaged: {self.segment.where}: it names a pack that it has not"
            )
        return self.counts.take(packs)


def find_all(segment: Segment, ids: SortedIds, avoid: frozenset[bytes] = frozenset()) -> Numbers:
    """Return the number of each id's record in a segment, ``NOWHERE`` for none. Blocks.

    Args:
        segment: where to look.
        ids: the ids to look for; the result has their order.
        avoid: packs that do not count.

    Raises:
        CorruptError: the segment is damaged, or cannot be read.
    """
    found = np.full(len(ids), NOWHERE, dtype=np.int64)
    counts = np.array([pack not in avoid for pack in segment.packs], dtype=np.bool_)
    search = _Search(segment, ids, counts, found)
    if len(ids) <= _MOST_OF_A_STRETCH:
        search.look(0, len(ids))
    else:
        cuts = [len(ids) * part // CPU_THREADS for part in range(CPU_THREADS + 1)]
        with open_cpu_threads("lookup") as threads:
            for _ in threads.map(search.look, cuts[:-1], cuts[1:]):
                pass
    return found


def mark_records(
    index: Index,
    marks: Sequence[NDArray[np.bool_]],
    ids: Ids,
    avoid: frozenset[bytes],
    *,
    everywhere: bool,
) -> Numbers:
    """Set a flag for the records of chunks. Blocks.

    Args:
        index: where to look.
        marks: for each segment of it, a flag for each record.
        ids: of the chunks.
        avoid: packs that count only for chunks that no other pack has.
        everywhere: mark all locations of a chunk, not only the first.

    Returns:
        The places in ``ids`` of those that the index does not know, in no order.

    Raises:
        CorruptError: the index is damaged, or cannot be read.
    """
    wanted = SortedIds(ids)
    for avoided in (avoid, frozenset[bytes]()):
        is_missing = np.ones(len(wanted), dtype=np.bool_)
        for segment, flags in zip(index.segments, marks, strict=True):
            found = find_all(segment, wanted, avoided)
            is_here = found != NOWHERE
            flags[found[is_here]] = True
            if everywhere:
                is_missing &= ~is_here
            else:
                wanted.keep(~is_here)
        if everywhere:
            wanted.keep(is_missing)
    return wanted.places


def are_missing(
    index: Index, blocks: Iterable[IdField], avoid: frozenset[bytes] = frozenset()
) -> NDArray[np.bool_]:
    """Return for each of many ids, in any order, whether no segment has it. Blocks.

    Args:
        index: where to look.
        blocks: the ids; read once.
        avoid: packs that do not count: those pending deletion.

    Raises:
        CorruptError: the index is damaged, or cannot be read.
    """
    flags = [np.empty(0, dtype=np.bool_)]
    for ids in batches(blocks, _MISSING_AT_ONCE):
        wanted = SortedIds(ids)
        for segment in index.segments:
            wanted.keep(find_all(segment, wanted, avoid) == NOWHERE)
        is_missing = np.zeros(len(ids), dtype=np.bool_)
        is_missing[wanted.places] = True
        flags.append(is_missing)
    return np.concatenate(flags)


def _are_same(records: wire.Records, ids: Ids) -> NDArray[np.bool_]:
    """Compare ids in full."""
    found = records["id"].view(np.uint64)
    is_same: NDArray[np.bool_] = found[:, 0] == ids[:, 0]
    for word in range(1, ID_WORDS):
        is_same &= found[:, word] == ids[:, word]
    return is_same

"""Looking up very many ids at once: a pass over the index in the place of a read for each id.

::

    ids       sorted by their first 8 bytes; each knows the place it had
    segment   |   stretch   |      |  stretch  |       read as far as there are ids for it
    both      met by those 8 bytes; what meets is compared whole

Called by the writer, for the chunks of an earlier map, and by the sweep, for those of all maps.
Memory: some 30 bytes an id beside the ids themselves, and a stretch of the index.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from virtbackup_async.errors import CorruptError
from virtbackup_async.repository import index_format as wire
from virtbackup_async.repository.chunks import ID_BYTES
from virtbackup_async.repository.segments import Index, Segment

IDS_AT_ONCE: Final = 1 << 21
NOWHERE: Final = -1
_STRETCH_RECORDS: Final = 1 << 17
# To read over so many records is as quick as another read.
_GAP_RECORDS: Final = 1 << 12

Numbers = NDArray[np.int64]


class SortedIds:
    """Some ids by their order.

    Attributes:
        places: for each, which it was before.
    """

    def __init__(self, ids: bytes | bytearray | memoryview) -> None:
        """Sort ``ids``: 32 bytes each, one behind the other. They must not change meanwhile."""
        self._words = np.frombuffer(ids, dtype=">u8").reshape(-1, ID_BYTES // 8)
        keys = self._words[:, 0].astype(np.uint64)
        self.places: Numbers = np.argsort(keys)
        self.keys: NDArray[np.uint64] = keys[self.places]

    def __len__(self) -> int:
        return len(self.keys)

    def words(self, which: Numbers) -> NDArray[np.uint64]:
        """Return some of the ids, as four numbers each."""
        return self._words[self.places[which]]

    def keep(self, which: NDArray[np.bool_]) -> None:
        """Forget the others."""
        self.places = self.places[which]
        self.keys = self.keys[which]


class _Stretch(NamedTuple):
    """Some ids, and the records of a segment among which they are, if anywhere."""

    first_id: int
    end_id: int
    first_record: int
    end_record: int


def find_all(segment: Segment, ids: SortedIds, avoid: frozenset[bytes] = frozenset()) -> Numbers:
    """Return the number of each id's record in a segment, ``NOWHERE`` for none. Blocks.

    Args:
        segment: where to look.
        ids: what for; the answer has their order.
        avoid: packs that do not count.

    Raises:
        CorruptError: the segment is damaged, or cannot be read.
    """
    found = np.full(len(ids), NOWHERE, dtype=np.int64)
    counts = np.array([pack not in avoid for pack in segment.packs], dtype=np.bool_)
    for stretch in _stretches(segment, ids):
        _match(segment, stretch, ids, counts, found)
    return found


def missing_ids(
    index: Index, ids: bytes | bytearray | memoryview, avoid: frozenset[bytes] = frozenset()
) -> Numbers:
    """Return which of some ids are in no segment: their places among ``ids``, ascending. Blocks.

    For a map of any length, call it with ``IDS_AT_ONCE`` at a time: each call may read the whole
    index once.

    Args:
        index: where to look.
        ids: 32 bytes each, one behind the other, in any order.
        avoid: packs that do not count: those that are condemned.

    Raises:
        CorruptError: the index is damaged, or cannot be read.
    """
    wanted = SortedIds(ids)
    for segment in index.segments:
        wanted.keep(find_all(segment, wanted, avoid) == NOWHERE)
    return np.sort(wanted.places)


def _stretches(segment: Segment, ids: SortedIds) -> Iterator[_Stretch]:
    if not len(ids):
        return
    starts, ends = segment.buckets_of(ids.keys)
    is_far = starts[1:] - ends[:-1] > _GAP_RECORDS
    is_long = starts[1:] // _STRETCH_RECORDS != starts[:-1] // _STRETCH_RECORDS
    cuts = [0, *(np.flatnonzero(is_far | is_long) + 1).tolist(), len(ids)]
    for first, end in pairwise(cuts):
        yield _Stretch(first, end, int(starts[first]), int(ends[end - 1]))


def _match(
    segment: Segment,
    stretch: _Stretch,
    ids: SortedIds,
    counts: NDArray[np.bool_],
    found: Numbers,
) -> None:
    records = segment.read_records(stretch.first_record, stretch.end_record)
    keys = wire.keys_of(records)
    wanted = ids.keys[stretch.first_id : stretch.end_id]
    at = np.searchsorted(keys, wanted)
    open_ids = np.arange(len(wanted))
    # Mostly one round: a second one is for ids that differ behind 8 bytes, or are there twice.
    while len(open_ids := _still_equal(keys, wanted, at, open_ids)):
        candidates = records[at[open_ids]]
        if int(candidates["pack"].max()) >= len(counts):
            raise CorruptError(f"index is damaged: {segment.path}: it names a pack that it has not")
        is_same = (candidates["id"] == ids.words(stretch.first_id + open_ids)).all(axis=1)
        is_same &= counts[candidates["pack"]]
        hits = open_ids[is_same]
        found[stretch.first_id + hits] = stretch.first_record + at[hits]
        open_ids = open_ids[~is_same]
        at[open_ids] += 1


def _still_equal(
    keys: NDArray[np.uint64], wanted: NDArray[np.uint64], at: Numbers, which: Numbers
) -> Numbers:
    inside: Numbers = which[at[which] < len(keys)]
    is_equal: NDArray[np.bool_] = keys[at[inside]] == wanted[inside]
    return inside[is_equal]

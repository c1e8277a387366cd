"""Whose each chunk of the index is: nobody's, one backup's, or of several.

Filled by ``shares.py``. Where a chunk is in the index twice, the first place counts, and the other
is nobody's.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from virtbackup_async.repository.index.id_batches import Ids
from virtbackup_async.repository.index.lookup import NOWHERE, Numbers, SortedIds, find_all
from virtbackup_async.repository.index.segments import Index

_NOBODY: Final = 0

Whose = NDArray[np.uint32]


class ExclusiveUsage(Struct, frozen=True):
    """How the bytes of all chunks in the packs fall to backups.

    Attributes:
        own_bytes: what each owner needs alone.
        shared_bytes: what several need.
        unneeded_bytes: what nobody needs.
    """

    own_bytes: tuple[int, ...]
    shared_bytes: int
    unneeded_bytes: int


class Ownership:
    """A number for each record of the index; owners are counted from 0 on.

    Attributes:
        several: what stands for more than one of them.
    """

    def __init__(self, index: Index, owners: int) -> None:
        self.several = owners + 1
        self._index = index
        kind = np.uint16 if self.several <= np.iinfo(np.uint16).max else np.uint32
        self._whose = [np.zeros(segment.shape.records, kind) for segment in index.segments]

    def number_of(self, owner: int | None) -> int:
        """Return what stands for an owner; None for several."""
        return self.several if owner is None else owner + 1

    def enter(self, ids: Ids, whose: Whose) -> None:
        """Note whose chunks are. Blocks.

        Args:
            ids: those that the index does not know pass.
            whose: numbers by ``number_of`` and ``several``, one for each.

        Raises:
            CorruptError: the index is damaged, or cannot be read.
        """
        wanted = SortedIds(ids)
        for segment, known in zip(self._index.segments, self._whose, strict=True):
            found = find_all(segment, wanted)
            hit = found != NOWHERE
            records, owners = _one_a_record(found[hit], whose[wanted.places[hit]], self.several)
            before = known[records]
            is_only = (before == _NOBODY) | (before == owners)
            known[records] = np.where(is_only, owners, self.several)
            wanted.keep(~hit)

    def shares(self, on_step: Callable[[], None]) -> ExclusiveUsage:
        """Add up what the chunks of each take in packs. Blocks."""
        total = np.zeros(self.several + 1, dtype=np.int64)
        for segment, known in zip(self._index.segments, self._whose, strict=True):
            for first, end in segment.parts():
                on_step()
                lengths = segment.read_records(first, end)["length"]
                whose = known[first:end].astype(np.intp)
                sums = np.bincount(whose, lengths, len(total))
                total += sums.astype(np.int64)
        nobody, *own, several = total.tolist()
        return ExclusiveUsage(tuple(own), several, nobody)


def _one_a_record(records: Numbers, owners: Whose, several: int) -> tuple[Numbers, Whose]:
    """Put together what was said of the same record."""
    if not len(records):
        return records, owners
    order = np.argsort(records, kind="stable")
    records, owners = records[order], owners[order]
    firsts = np.flatnonzero(np.concatenate(([True], records[1:] != records[:-1])))
    lowest, highest = (by.reduceat(owners, firsts) for by in (np.minimum, np.maximum))
    return records[firsts], np.where(lowest == highest, lowest, np.uint32(several))

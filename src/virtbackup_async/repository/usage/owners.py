"""The owner of each chunk of the index: nobody, one backup, or several.

Filled by ``exclusive.py``. Of a chunk that is in the index twice, the first record counts; the
other one belongs to nobody.
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
    """How the bytes of all blobs are shared among the backups.

    Attributes:
        own_bytes: for each owner, the bytes that it needs alone.
        shared_bytes: needed by several.
        unneeded_bytes: needed by nobody.
    """

    own_bytes: tuple[int, ...]
    shared_bytes: int
    unneeded_bytes: int


class Ownership:
    """An owner for each record of the index; owners are numbered from 0.

    Attributes:
        several: the number that stands for more than one owner.
    """

    def __init__(self, index: Index, owners: int) -> None:
        self.several = owners + 1
        self._index = index
        kind = np.uint16 if self.several <= np.iinfo(np.uint16).max else np.uint32
        self._whose = [np.zeros(segment.shape.records, kind) for segment in index.segments]

    def number_of(self, owner: int | None) -> int:
        """Return the number that stands for an owner; None means several."""
        return self.several if owner is None else owner + 1

    def enter(self, ids: Ids, whose: Whose) -> None:
        """Note the owners of chunks. Blocks.

        Args:
            ids: of the chunks; unknown ones are ignored.
            whose: a number from ``number_of`` for each id.

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
        """Add up the length of the blobs of each owner. Blocks."""
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
    """Combine the owners of equal records."""
    if not len(records):
        return records, owners
    order = np.argsort(records, kind="stable")
    records, owners = records[order], owners[order]
    firsts = np.flatnonzero(np.concatenate(([True], records[1:] != records[:-1])))
    lowest, highest = (by.reduceat(owners, firsts) for by in (np.minimum, np.maximum))
    return records[firsts], np.where(lowest == highest, lowest, np.uint32(several))

"""Ids from maps, gathered into batches that are looked up at once.

::

    blocks of a map, or of many maps  -->  | id | id | id | ...        |  -->  lookup
                                             32 bytes each, in one piece

Called wherever ids are looked up: for a backup, the prune, ``verify`` and ``stats``. A lookup can
read the complete index, so batches are as large as memory allows. The memory is reused.
"""

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from virtbackup_async.repository.format.chunks import ID_BYTES

# For callers that also hold other data, such as a flag for each record of the index.
IDS_AT_ONCE: Final = 1 << 21
ID_WORDS: Final = ID_BYTES // 8
# A block is added whenever there is space for one more id.
_ROOM: Final = 1 << 16

# An id as four numbers; and as a field of a map's entries.
Ids = NDArray[np.uint64]
IdField = NDArray[np.void]


class IdBatch:
    """Some ids, until there are ``at_once`` of them."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        # The kernel allocates a page when it is first written to: unused ones cost nothing.
        self._ids = np.empty((at_once + _ROOM, ID_WORDS), dtype=np.uint64)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def is_full(self) -> bool:
        return self._count >= self._at_once

    @property
    def ids(self) -> Ids:
        """All ids that were added since ``clear``; valid until ids are added after the next one."""
        return self._ids[: self._count]

    def add(self, ids: IdField) -> None:
        end = self._count + len(ids)
        if end > len(self._ids):
            self._ids = np.resize(self._ids, (end, ID_WORDS))
        self._ids[self._count : end].view(ids.dtype)[:, 0] = ids
        self._count = end

    def clear(self) -> None:
        self._count = 0


def batches(blocks: Iterable[IdField], at_once: int) -> Iterator[Ids]:
    """Gather the ids of many blocks; each batch is valid until the next one is requested."""
    batch = IdBatch(at_once)
    for ids in blocks:
        batch.add(ids)
        if batch.is_full:
            yield batch.ids
            batch.clear()
    if len(batch):
        yield batch.ids


def ids_of(data: bytes | IdField) -> Ids:
    """Return the ids in a buffer, where they follow each other."""
    return np.frombuffer(data, dtype=np.uint64).reshape(-1, ID_WORDS)

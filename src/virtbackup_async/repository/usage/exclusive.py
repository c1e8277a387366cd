"""How much of a repository each backup uses exclusively: removing it would free that much.

::

    map of Monday      | a | b | c |      a, b, c: only Monday needs them
    map of Tuesday     | a | x | c |      x: only Tuesday; a, c: several backups
    map of Wednesday   | a | x | c |      x: several; a, c are not looked up again

Called by ``stats``. All maps are read, but a chunk that stays the same from backup to backup is
looked up only twice. Memory: two bytes for each chunk of the index (four if there are more
than 65533 backups), and the ids that are looked up at once.
"""

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from typing import Final, NamedTuple

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from virtbackup_async.repository.data.maps import ChunkMap, check_owner, open_map
from virtbackup_async.repository.format.map_format import Entries
from virtbackup_async.repository.index.id_batches import IDS_AT_ONCE, IdBatch, Ids
from virtbackup_async.repository.index.lookup import NOWHERE, Numbers, SortedIds, find_all
from virtbackup_async.repository.index.segments import Index, open_index
from virtbackup_async.repository.storage.layout import ListMaps, MapFile, Repository

_NEIGHBOURS: Final = 2
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


class _Read(NamedTuple):
    """A map that was read; it stays open to be compared with the next ones."""

    file: MapFile
    chunk_map: ChunkMap
    owner: int | None


def exclusive_usage(
    repository: Repository,
    list_maps: ListMaps,
    owners: Mapping[str, int],
    on_step: Callable[[], None],
) -> ExclusiveUsage:
    """Find out how much each backup uses exclusively. Blocks.

    Args:
        repository: the repository to measure.
        list_maps: lists the maps of its target.
        owners: the number, from 0, of the backup that each map belongs to, by the name of the
            map. A map that is not listed, such as one of a pending backup, counts as several.
        on_step: called often; may raise.

    Raises:
        CorruptError: a map or the index is damaged.
        StorageError: it cannot be read.
    """
    with closing(open_index(repository)) as index:
        ownership = Ownership(index, 1 + max(owners.values(), default=-1))
        with closing(_Sharing(repository, ownership, on_step)) as sharing:
            for file in list_maps():
                # Its backup may have been removed since the directory was read.
                with suppress(FileNotFoundError):
                    sharing.take(file, owners.get(file.name))
            sharing.enter()
        return ownership.shares(on_step)


class Ownership:
    """An owner for each record of the index: nobody, one backup, or several; numbered from 0.

    Of a chunk that is in the index twice, the first record counts; the other belongs to nobody.

    Attributes:
        several: the number for more than one owner.
    """

    def __init__(self, index: Index, owners: int) -> None:
        self.several = owners + 1
        self._index = index
        kind = np.uint16 if self.several <= np.iinfo(np.uint16).max else np.uint32
        self._whose = [np.zeros(segment.shape.records, kind) for segment in index.segments]

    def number_of(self, owner: int | None) -> int:
        """Return the number for an owner; None means several."""
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


class _Sharing:
    """Reads maps, those of a disk by date; ``close`` it."""

    def __init__(
        self, repository: Repository, ownership: Ownership, on_step: Callable[[], None]
    ) -> None:
        self._repository = repository
        self._ownership = ownership
        self._on_step = on_step
        self._batch = IdBatch(IDS_AT_ONCE)
        self._whose: list[Whose] = []
        self._before: deque[_Read] = deque()

    def take(self, file: MapFile, owner: int | None) -> None:
        chunk_map = open_map(self._repository.storage, file.name)
        self._leave_behind(file, owner)
        self._before.appendleft(_Read(file, chunk_map, owner))
        check_owner(chunk_map, self._repository)
        for block in chunk_map.blocks():
            self._on_step()
            self._note(block, owner)
            if self._batch.is_full:
                self.enter()

    def enter(self) -> None:
        """Look up the chunks that were noted."""
        if len(self._batch):
            self._ownership.enter(self._batch.ids, np.concatenate(self._whose))
        self._batch.clear()
        self._whose.clear()

    def close(self) -> None:
        while self._before:
            self._before.pop().chunk_map.close()

    def _note(self, block: Entries, owner: int | None) -> None:
        """Note the owner of chunks, except those that are known to have several."""
        whose = np.full(len(block), self._ownership.number_of(owner), dtype=np.uint32)
        others = [read.chunk_map.has(block) for read in list(self._before)[1:]]
        if others:
            whose[others[0]] = self._ownership.several
        if len(others) == _NEIGHBOURS:
            # A chunk in both earlier maps was noted as shared when the second one was read.
            is_new = ~(others[0] & others[1])
            block, whose = block[is_new], whose[is_new]
        self._batch.add(self._repository.sealing.ids_of(block["leaf"]))
        self._whose.append(whose)

    def _leave_behind(self, file: MapFile, owner: int | None) -> None:
        """Close the maps that the next one is not compared with: of other disks, or too old."""
        is_neighbour = bool(self._before) and _is_same_disk(self._before[0], file, owner)
        keep = _NEIGHBOURS if is_neighbour else 0
        while len(self._before) > keep:
            self._before.pop().chunk_map.close()


def _is_same_disk(read: _Read, file: MapFile, owner: int | None) -> bool:
    return file.disk == read.file.disk and (owner is None or owner != read.owner)


def _one_a_record(records: Numbers, owners: Whose, several: int) -> tuple[Numbers, Whose]:
    """Combine the owners of equal records."""
    if not len(records):
        return records, owners
    order = np.argsort(records, kind="stable")
    records, owners = records[order], owners[order]
    firsts = np.flatnonzero(np.concatenate(([True], records[1:] != records[:-1])))
    lowest, highest = (by.reduceat(owners, firsts) for by in (np.minimum, np.maximum))
    return records[firsts], np.where(lowest == highest, lowest, np.uint32(several))

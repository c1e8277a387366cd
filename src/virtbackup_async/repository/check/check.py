"""Check chunks: each is read and hashed once, however many maps need it.

::

    need     find the chunks of maps in the index, at all their locations           needed
    packs    check that each of their packs exists, is long enough, has a good header  bad
    places   sort the locations by pack and offset, join them into runs of some MiB
    check    read a run at once, and compare each chunk in it with its id              bad
    losses   if anything is bad, read the maps again: which bytes of which image?

Called by ``verify`` for the chosen maps, and by ``repair`` for the complete index. A chunk with two
copies is lost if both are bad. Invariant: nothing is written. Memory: two bytes a
record of the index, and a batch of places.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from threading import Lock
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from virtbackup_async.concurrency import CPU_THREADS
from virtbackup_async.errors import CorruptError, NewerVersionError
from virtbackup_async.files.refusals import reading
from virtbackup_async.model.amounts import size
from virtbackup_async.repository.data.open_packs import OpenPacks
from virtbackup_async.repository.data.read_runs import Run, places_of, runs_of
from virtbackup_async.repository.format import pack_format
from virtbackup_async.repository.format.chunks import ID_BYTES
from virtbackup_async.repository.index.id_batches import Ids
from virtbackup_async.repository.index.lookup import NOWHERE, SortedIds, find_all, mark_records
from virtbackup_async.repository.index.segments import Index, Location, Segment
from virtbackup_async.repository.storage.interface import StoredFile
from virtbackup_async.repository.storage.layout import Repository, pack_file, pack_sizes

PLACES_A_BATCH: Final = 1 << 20

Flags = NDArray[np.bool_]
OnStep = Callable[[], None]


class PackDamage(Struct):
    """The first problem that was found in a pack, and the number of chunks that it costs."""

    error: str
    chunks: int = 0


class Check:
    """One check of an index that is open; ``check`` may be called by several threads.

    Attributes:
        needed: for each segment, a flag for each record that is to be checked.
        bad: for each segment, a flag for each of these that cannot be read.
        damage: the damage that was found, by pack.
        damaged_heads: packs whose headers are damaged.
        newer_pack: the error of a pack that a newer program wrote, if there is one.
    """

    def __init__(self, repository: Repository, index: Index, pending: frozenset[bytes]) -> None:
        self._repository = repository
        self._index = index
        self._pending = pending
        self.needed: list[Flags] = [_no_flags(segment) for segment in index.segments]
        self.bad: list[Flags] = [_no_flags(segment) for segment in index.segments]
        names = sorted({pack for segment in index.segments for pack in segment.packs})
        self._packs = names
        numbers = {pack: number for number, pack in enumerate(names)}
        self._pack_numbers = [
            np.array([numbers[pack] for pack in segment.packs], dtype=np.uint32)
            for segment in index.segments
        ]
        self._ends = np.zeros(len(names), dtype=np.int64)
        self._counts = np.zeros(len(names), dtype=np.int64)
        self._open = OpenPacks(repository)
        self._turn = Lock()
        self.damage: dict[int, PackDamage] = {}
        self.damaged_heads: list[bytes] = []
        self.newer_pack: str | None = None

    @property
    def runs_at_once(self) -> int:
        """How many runs should be checked at once, so that neither processors nor storage wait."""
        return max(CPU_THREADS, self._repository.storage.reads_at_once)

    def close(self) -> None:
        """Close the packs that were read. Blocks."""
        self._open.close()

    def need(self, ids: Ids) -> int:
        """Ask for some chunks at all their locations. Blocks.

        Returns:
            The number of chunks that the index does not know.
        """
        return len(mark_records(self._index, self.needed, ids, self._pending, everywhere=True))

    def need_all(self) -> None:
        """Ask for all chunks of the index."""
        for needed in self.needed:
            needed[:] = True

    def look_at_packs(self, on_step: OnStep, *, lengths_only: bool = False) -> int:
        """Check the length and the header of each pack with a needed chunk. Blocks.

        Args:
            on_step: called often; may raise.
            lengths_only: only list the packs: far fewer requests to a store than to open each.

        Returns:
            The number of bytes to check.
        """
        total_bytes = 0
        for _, _, packs, records in self._needed_records(on_step):
            ends = records["offset"].astype(np.int64) + records["length"]
            np.maximum.at(self._ends, packs, ends)
            np.add.at(self._counts, packs, 1)
            total_bytes += int(records["length"].sum())
        sizes = self._listed_sizes() if lengths_only else None
        usable = np.array([self._look(number, sizes) for number in range(len(self._packs))])
        for segment, numbers, packs, records in self._needed_records(on_step):
            is_bad = records["offset"].astype(np.int64) + records["length"] > usable[packs]
            is_bad |= records["length"] > self._repository.sealing.shape.max_blob_bytes
            self.bad[segment][numbers[is_bad]] = True
            for pack in packs[is_bad].tolist():
                where = self._repository.where_is(self._packs[pack])
                self._note(pack, f"index is damaged: it names a chunk that cannot be in {where}")
            total_bytes -= int(records["length"][is_bad].sum())
        return total_bytes

    def runs(self, on_step: OnStep) -> Iterator[Run]:
        """Yield the runs to read, pack by pack, in the order of their offsets. Blocks."""
        for first, end in self._batches():
            found = [
                places_of(segment, numbers, packs, records)
                for segment, numbers, packs, records in self._needed_records(on_step, (first, end))
            ]
            if found:
                yield from runs_of(np.concatenate(found))

    def check(self, run: Run) -> int:
        """Read a run, and compare each of its chunks with its id. Blocks.

        Returns:
            The length of these chunks in bytes.
        """
        pack = self._packs[run.pack]
        where = self._repository.where_is(pack)
        offsets = (run.places["offset"] - np.uint32(run.start)).tolist()
        lengths = run.places["length"].tolist()
        ids = run.places["id"].tobytes()
        data = self._read(run)
        for place, (offset, length) in enumerate(zip(offsets, lengths, strict=True)):
            id_ = ids[place * ID_BYTES : (place + 1) * ID_BYTES]
            try:
                with reading("pack", where):
                    blob = data[offset : offset + length]
                    if data is _NOTHING:
                        location = Location(pack, run.start + offset, length)
                        blob = _read_alone(self._repository, location)
                    self._repository.sealing.check(blob, id_)
            except (CorruptError, FileNotFoundError) as error:
                with self._turn:
                    segment, number = run.places[place]["segment"], run.places[place]["number"]
                    self.bad[segment][number] = True
                    self._note(run.pack, str(error))
        return sum(lengths)

    def lost(self, ids: Ids) -> list[int]:
        """Return the places in ``ids`` of the chunks that have no good copy. Blocks."""
        wanted = SortedIds(ids)
        is_good = np.zeros(len(wanted), dtype=np.bool_)
        for segment, needed, bad in zip(self._index.segments, self.needed, self.bad, strict=True):
            found = find_all(segment, wanted)
            is_known = found != NOWHERE
            places = found[is_known]
            is_good[is_known] |= needed[places] & ~bad[places]
        suspects = np.sort(wanted.places[~is_good]).tolist()
        return [place for place in suspects if not self._is_readable(ids[place].tobytes())]

    def count_needed(self) -> int:
        """Return the number of locations that were asked for."""
        return sum(int(np.count_nonzero(needed)) for needed in self.needed)

    def count_bad(self) -> int:
        """Return the number of bad ones among them."""
        return sum(int(np.count_nonzero(bad)) for bad in self.bad)

    @property
    def has_losses(self) -> bool:
        """Whether any location is bad."""
        return any(bad.any() for bad in self.bad)

    def bad_segments(self) -> Iterator[tuple[Segment, Flags]]:
        """Yield the segments with bad records, and the flags of these."""
        for segment, bad in zip(self._index.segments, self.bad, strict=True):
            if bad.any():
                yield segment, bad

    def _is_readable(self, id_: bytes) -> bool:
        """Check each location of a chunk: until here, two in one segment counted as one."""
        for segment, needed, bad in zip(self._index.segments, self.needed, self.bad, strict=True):
            for number, location in segment.find(id_):
                if needed[number]:
                    if not bad[number]:
                        return True
                elif is_readable(self._repository, id_, location):
                    return True
        return False

    def _needed_records(
        self, on_step: OnStep, packs: tuple[int, int] | None = None
    ) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.uint32], NDArray[np.void]]]:
        """Yield segment, numbers, packs and records of needed chunks that are not known as bad."""
        for place, segment in enumerate(self._index.segments):
            pack_numbers = self._pack_numbers[place]
            if packs and not _overlaps(pack_numbers, packs):
                continue
            for first, end in segment.parts():
                on_step()
                wanted = self.needed[place][first:end] & ~self.bad[place][first:end]
                numbers = np.flatnonzero(wanted)
                if not len(numbers):
                    continue
                records = segment.read_records(first, end)[numbers]
                if int(records["pack"].max()) >= len(segment.packs):
                    raise CorruptError(f"index is damaged: {segment.where}: it names no such pack")
                of_records = pack_numbers[records["pack"]]
                numbers += first
                if packs:
                    chosen = (packs[0] <= of_records) & (of_records < packs[1])
                    numbers, of_records, records = (
                        numbers[chosen], of_records[chosen], records[chosen],
                    )  # fmt: skip
                yield place, numbers, of_records, records

    def _listed_sizes(self) -> dict[bytes, int]:
        needed = (pack for number, pack in enumerate(self._packs) if self._counts[number])
        return pack_sizes(self._repository.storage, needed)

    def _look(self, number: int, sizes: Mapping[bytes, int] | None) -> int:
        """Return up to where a pack can be read; note its damage."""
        if not self._counts[number]:
            return 0
        pack, least_bytes = self._packs[number], int(self._ends[number])
        if sizes is None:
            look = _look_at_pack(self._repository, pack, least_bytes)
        else:
            look = _look_at_length(self._repository.where_is(pack), sizes.get(pack), least_bytes)
        if look.error is not None:
            self.damage[number] = PackDamage(look.error)
        if look.has_damaged_head:
            self.damaged_heads.append(self._packs[number])
        if look.is_newer:
            self.newer_pack = look.error
        return look.usable_bytes

    def _batches(self) -> Iterator[tuple[int, int]]:
        """Yield ranges of packs that have about as many locations as are handled at once."""
        first, places = 0, 0
        for number, count in enumerate(self._counts.tolist()):
            if places and places + count > PLACES_A_BATCH:
                yield first, number
                first, places = number, 0
            places += count
        if places:
            yield first, len(self._packs)

    def _read(self, run: Run) -> pack_format.Data:
        """Return a run's bytes; nothing if they cannot be read at once."""
        try:
            with self._open.opened(self._packs[run.pack]) as file:
                return file.read_once(run.end - run.start, run.start)
        except (OSError, CorruptError):
            return _NOTHING

    def _note(self, pack: int, error: str) -> None:
        self.damage.setdefault(pack, PackDamage(error)).chunks += 1


_NOTHING: Final = b""


def _no_flags(segment: Segment) -> Flags:
    return np.zeros(segment.shape.records, dtype=np.bool_)


def _overlaps(numbers: NDArray[np.uint32], packs: tuple[int, int]) -> bool:
    return bool(((packs[0] <= numbers) & (numbers < packs[1])).any())


def is_readable(repository: Repository, id_: bytes, location: Location) -> bool:
    """Return whether a good copy of a chunk is at a location. Blocks.

    Raises:
        StorageError: the pack cannot be reached now.
    """
    try:
        with reading("pack", repository.where_is(location.pack)):
            pack_format.check_blob_length(location.length, repository.sealing.shape)
            repository.sealing.check(_read_alone(repository, location), id_)
    except (FileNotFoundError, CorruptError):
        return False
    return True


def _open_pack(repository: Repository, pack: bytes) -> StoredFile:
    return repository.storage.open(pack_file(pack))


def _read_alone(repository: Repository, location: Location) -> bytes:
    with closing(_open_pack(repository, location.pack)) as file:
        return file.read(location.length, location.offset)


class _PackLook(Struct, frozen=True):
    """The state of a pack, as far as it shows without its chunks.

    Attributes:
        usable_bytes: up to where chunks can be read; 0 if it is missing, or another pack.
        error: the problem; None if there is none.
        has_damaged_head: its chunks can be good anyway, and readers do not need the header.
        is_newer: a newer program wrote it, for which it might be good.
    """

    usable_bytes: int
    error: str | None = None
    has_damaged_head: bool = False
    is_newer: bool = False


def _look_at_pack(repository: Repository, pack: bytes, least_bytes: int) -> _PackLook:
    """Check the length and the header of a pack."""
    where = repository.where_is(pack)
    try:
        with reading("pack", where), closing(_open_pack(repository, pack)) as file:
            length_bytes = file.size_bytes
            head = file.read_up_to(pack_format.HEAD_BYTES, 0)
            if not pack_format.is_whole_head(head):
                error = f"pack is damaged: {where}: its head is damaged"
                return _PackLook(length_bytes, error, has_damaged_head=True)
            version = repository.sealing.shape.version
            pack_format.check_head(head, repository.id, pack, version)
    except FileNotFoundError:
        return _look_at_length(where, None, least_bytes)
    except CorruptError as error:
        return _PackLook(0, error.message, is_newer=isinstance(error, NewerVersionError))
    return _look_at_length(where, length_bytes, least_bytes)


def _look_at_length(where: str, length_bytes: int | None, least_bytes: int) -> _PackLook:
    """Check the length of a pack; None if it is missing."""
    if length_bytes is None:
        return _PackLook(0, f"pack is missing: {where}")
    if length_bytes < least_bytes:
        cut_off = f"pack is damaged: {where}: it is cut off at {size(length_bytes)}"
        return _PackLook(length_bytes, cut_off)
    return _PackLook(length_bytes)

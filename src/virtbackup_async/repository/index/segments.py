"""The index's segments on disk, of which a lookup reads small parts.

Called by the writer, the reader and the prune; ``segment_writer`` writes them. Invariants: A
segment with a name is complete and never changes. All of it is checked when it is opened. Files are
read, not mapped: a mapped file that is cut off, or lost with the network, would kill the process.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
from blake3 import blake3
from msgspec import Struct

from virtbackup_async.errors import REPAIR_HINT, CorruptError, StorageError
from virtbackup_async.files.refusals import reading
from virtbackup_async.repository.format import index_format as wire
from virtbackup_async.repository.storage.interface import Copying, Storage, StoredFile
from virtbackup_async.repository.storage.layout import Repository, list_segments

_PIECE_BYTES: Final = 1 << 20
_RECORDS_A_PIECE: Final = _PIECE_BYTES // wire.RECORD_BYTES
_TRIES: Final = 10
RECORDS_AT_ONCE: Final = 1 << 18


class Location(NamedTuple):
    """Where a chunk's blob is."""

    pack: bytes
    offset: int
    length: int


class Segment:
    """An open segment; ``close`` it.

    Attributes:
        name: of its file.
        where: its name in messages.
        shape: its counts.
        packs: names of the packs.
        ends: the end of the last chunk in each of them, in bytes.
    """

    def __init__(self, name: str, file: StoredFile, repository_id: bytes) -> None:
        self.name = name
        self.where = file.where
        self._file = file
        file_bytes = file.size_bytes
        tail_bytes = min(file_bytes, wire.TAIL_BYTES)
        tail = file.read(tail_bytes, file_bytes - tail_bytes)
        self.shape = wire.decode_tail(tail, file_bytes)
        self.ends = np.zeros(self.shape.packs, dtype=np.int64)
        # The checksum first: a flipped bit in the head could look like another repository's id.
        self._check_content(file_bytes)
        wire.check_head(file.read(wire.HEAD_BYTES, 0), repository_id)
        fan_out = file.read(4 << self.shape.bits, self.shape.fan_out_offset)
        self._bounds = wire.decode_fan_out(fan_out, self.shape)
        names = file.read(self.shape.packs * wire.PACK_NAME_BYTES, self.shape.packs_offset)
        self.packs = tuple(
            names[at : at + wire.PACK_NAME_BYTES]
            for at in range(0, len(names), wire.PACK_NAME_BYTES)
        )

    def find(self, id_: bytes) -> Iterator[tuple[int, Location]]:
        """Yield the locations of a chunk, each with the number of its record."""
        bucket = wire.bucket_of(id_, self.shape.bits)
        first = int(self._bounds[bucket])
        count = int(self._bounds[bucket + 1]) - first
        if count:
            data = self._read_records(first, count)
            for place, record in wire.find_in_bucket(data, id_):
                yield first + place, self._location(record)

    def records_between(self, lowest: int, highest: int) -> tuple[int, int]:
        """Return the first record whose id can have these first 8 bytes, and the end of them."""
        # Their last bits can be missing: the fan-out uses at most the first 24.
        shift = 64 - self.shape.bits
        return int(self._bounds[lowest >> shift]), int(self._bounds[(highest >> shift) + 1])

    def cuts(self, bits: int) -> list[int]:
        """Return the first record of each bucket, and the end of the last."""
        if bits <= self.shape.bits:
            found = self._bounds[:: 1 << (self.shape.bits - bits)].astype(np.int64)
        else:  # a small segment
            keys = wire.keys_of(self.read_records(0, self.shape.records))
            found = np.searchsorted(wire.buckets_of(keys, bits), np.arange((1 << bits) + 1))
        return [int(cut) for cut in found]

    def read_records(self, first: int, end: int) -> wire.Records:
        """Return the records from ``first`` up to but not including ``end``. Blocks."""
        return wire.decode_records(self._read_records(first, end - first))

    def parts(self) -> Iterator[tuple[int, int]]:
        """Yield the ranges, first and end, of all records in parts that fit into memory."""
        for first in range(0, self.shape.records, RECORDS_AT_ONCE):
            yield first, min(first + RECORDS_AT_ONCE, self.shape.records)

    def close(self) -> None:
        self._file.close()

    def _location(self, record: wire.Record) -> Location:
        if record.pack >= len(self.packs):
            raise CorruptError(f"index is damaged: {self.where}: it names a pack that it has not")
        return Location(self.packs[record.pack], record.offset, record.length)

    def _read_records(self, first: int, count: int) -> bytes:
        offset = wire.HEAD_BYTES + first * wire.RECORD_BYTES
        with reading("index", self.where):
            return self._file.read(count * wire.RECORD_BYTES, offset)

    def _check_content(self, file_bytes: int) -> None:
        digest = blake3(self._file.read(wire.HEAD_BYTES, 0))
        for first in range(0, self.shape.records, _RECORDS_A_PIECE):
            count = min(_RECORDS_A_PIECE, self.shape.records - first)
            offset = wire.HEAD_BYTES + first * wire.RECORD_BYTES
            data = self._file.read(count * wire.RECORD_BYTES, offset)
            digest.update(data)
            wire.note_ends(self.ends, wire.decode_records(data))
        end = file_bytes - wire.CHECKSUM_BYTES
        for at in range(self.shape.fan_out_offset, end, _PIECE_BYTES):
            digest.update(self._file.read(min(_PIECE_BYTES, end - at), at))
        if digest.digest() != self._file.read(wire.CHECKSUM_BYTES, end):
            raise CorruptError("its checksum differs")


class DamagedSegment(Struct, frozen=True):
    """A segment that cannot be read, and why."""

    name: str
    error: CorruptError


def open_segment(repository: Repository, name: str) -> Segment:
    """Open a segment, and check all of it. Blocks.

    Raises:
        CorruptError: it is damaged.
        FileNotFoundError: it was replaced by another one.
    """
    with reading("index", repository.storage.where(name)):
        file = repository.storage.open(name)
        try:
            return Segment(name, file, repository.id)
        except BaseException:
            file.close()
            raise


class Index:
    """All segments of a repository, as they were when the index was opened; ``close`` it."""

    def __init__(self, storage: Storage, segments: Sequence[Segment] = ()) -> None:
        self.segments = list(segments)
        self._storage = storage

    def find(self, id_: bytes, avoid: frozenset[bytes] = frozenset()) -> Location | None:
        """Return the location of a chunk outside the packs to avoid; None if there is none."""
        for location in self.places(id_):
            if location.pack not in avoid:
                return location
        return None

    def places(self, id_: bytes) -> Iterator[Location]:
        """Yield all locations of a chunk; reading shows which of them are good."""
        for segment in self.segments:
            for _, location in segment.find(id_):
                yield location

    def remove(self, segment: Segment) -> None:
        """Forget a segment whose records another one has, and remove its file."""
        self.segments.remove(segment)
        segment.close()
        self._storage.remove(segment.name)

    def close(self) -> None:
        while self.segments:
            self.segments.pop().close()


def open_index(repository: Repository) -> Index:
    """Open all segments. Blocks.

    Raises:
        CorruptError: one is damaged.
        StorageError: they cannot be listed.
    """
    index, damaged = open_readable_index(repository)
    if damaged:
        index.close()
        raise damaged[0].error.reworded(damaged[0].error.message, REPAIR_HINT)
    return index


def open_index_anew(repository: Repository) -> tuple[Index, list[DamagedSegment]]:
    """Open all segments that can be read, as the target has them; as ``open_readable_index``."""
    if not isinstance(repository.storage, Copying):
        return open_readable_index(repository)
    with repository.storage.reading_anew():
        return open_readable_index(repository)


def open_readable_index(repository: Repository) -> tuple[Index, list[DamagedSegment]]:
    """Open all segments that can be read. Blocks.

    Returns:
        The index of these segments, and the others, with their errors.

    Raises:
        StorageError: they cannot be listed.
    """
    for _ in range(_TRIES - 1):
        try:
            return _open_index(repository)
        except FileNotFoundError:
            pass  # the prune has replaced it since the segments were listed
    try:
        return _open_index(repository)
    except FileNotFoundError as error:
        raise StorageError(
            f"cannot read {repository.where}: its index changes faster than it is read"
        ) from error


def _open_index(repository: Repository) -> tuple[Index, list[DamagedSegment]]:
    index = Index(repository.storage)
    damaged = []
    try:
        for name in list_segments(repository.storage):
            try:
                index.segments.append(open_segment(repository, name))
            except CorruptError as error:
                damaged.append(DamagedSegment(name, error))
    except BaseException:
        index.close()
        raise
    # Most ids are in a large one.
    index.segments.sort(key=lambda segment: segment.shape.records, reverse=True)
    return index, damaged

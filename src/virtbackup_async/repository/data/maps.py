"""Maps on disk: written while an image is stored, and read at any place.

Called by the packager (one map for each image) and by the prune (all of them). Invariant: a map
that has its name is complete and durable, and so are all chunks that it names.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from virtbackup_async.errors import CorruptError, ForeignRepositoryError, NewerVersionError
from virtbackup_async.files.refusals import reading
from virtbackup_async.images.digest import ImageDigest
from virtbackup_async.images.extents import bounded
from virtbackup_async.model.extent import Extent
from virtbackup_async.repository.format import map_format as wire
from virtbackup_async.repository.format.chunks import CHUNK_BYTES, extents_of
from virtbackup_async.repository.storage.interface import Storage, StoredFile
from virtbackup_async.repository.storage.layout import Repository

_ENTRIES_AT_ONCE: Final = 4096
_BLOCK_ENTRIES: Final = 1 << 15
_WORDS: Final = wire.ENTRY_BYTES // 8
_PIECE_BYTES: Final = 1 << 16


class MapWriter:
    """A map that is being written; others see it when it is published.

    Attributes:
        name: of its file.
        length_bytes: of its file so far.
        data_bytes: how much of the image is data, according to the entries so far.
        digest: of the image that the entries describe.
    """

    def __init__(self, storage: Storage, name: str, head: wire.MapHead) -> None:
        self.name = name
        self.data_bytes = 0
        self.digest = ImageDigest(head.size_bytes)
        self._head = head
        self._digest = blake3()
        self._waiting = bytearray(wire.encode_head(head))
        self.length_bytes = len(self._waiting)
        self._file = storage.create_hidden(name)
        self._is_finished = False

    def add(self, entries: wire.Entries) -> None:
        """Append entries, at least one; numbers ascend. Blocks at times."""
        add_leaves(self.digest, entries)
        self.data_bytes += wire.data_length_of(entries, self._head.size_bytes)
        self._waiting += entries.tobytes()
        self.length_bytes += entries.nbytes
        if len(self._waiting) >= _PIECE_BYTES:
            self._write()

    def finish(self) -> None:
        """Make the content durable; the map has no name yet. Blocks."""
        if not self._is_finished:
            self._write()
            self._file.append(self._digest.digest())
            self.length_bytes += wire.TAIL_BYTES
            self._file.finish()
            self._is_finished = True

    def publish(self) -> None:
        """Give the map its name, which must be free and is not durable yet. Blocks."""
        self._file.publish_exclusively()

    def discard(self) -> None:
        """Remove the map, if it has no name yet. Blocks; can be called again."""
        self._file.discard()

    def _write(self) -> None:
        self._digest.update(self._waiting)
        self._file.append(self._waiting)
        self._waiting.clear()


class ChunkMap:
    """An open map; ``close`` it."""

    def __init__(self, name: str, file: StoredFile) -> None:
        self.name = name
        self.where = file.where
        self._file = file
        file_bytes = file.size_bytes
        self._count = wire.entry_count(file_bytes)
        self.head = self._read_head(file_bytes)
        self._block: list[wire.MapEntry] = []

    def _read_head(self, file_bytes: int) -> wire.MapHead:
        data = self._file.read(wire.HEAD_BYTES, 0)
        try:
            return wire.decode_head(data)
        except NewerVersionError:
            # The checksum distinguishes a newer version from a flipped bit.
            self._check_whole(file_bytes)
            raise

    def _check_whole(self, file_bytes: int) -> None:
        digest = blake3()
        end = file_bytes - wire.TAIL_BYTES
        for at in range(0, end, _PIECE_BYTES):
            digest.update(self._file.read(min(_PIECE_BYTES, end - at), at))
        if digest.digest() != self._file.read(wire.TAIL_BYTES, end):
            raise CorruptError("its checksum differs")

    def entries(self) -> Iterator[wire.MapEntry]:
        """Yield all entries one by one; raises as ``blocks``."""
        for block in self.blocks():
            numbers, pages, leaves = (
                block[field].tolist() for field in ("number", "pages", "leaf")
            )
            yield from map(wire.MapEntry, numbers, pages, leaves)

    def blocks(self, at_once: int = _BLOCK_ENTRIES) -> Iterator[wire.Entries]:
        """Yield all entries in blocks; a wrong checksum raises an error at the end.

        Raises:
            CorruptError: the map is damaged.
        """
        with reading("package", self.where):
            yield from self._blocks(at_once)

    def _blocks(self, at_once: int) -> Iterator[wire.Entries]:
        digest = blake3(self._file.read(wire.HEAD_BYTES, 0))
        last = -1
        for first in range(0, self._count, at_once):
            data = self._read(first, at_once)
            digest.update(data)
            block = np.frombuffer(data, dtype=wire.ENTRY)
            wire.check_entries(block, last, self.head)
            last = int(block["number"][-1])
            yield block
        tail_offset = wire.HEAD_BYTES + self._count * wire.ENTRY_BYTES
        if self._file.read(wire.TAIL_BYTES, tail_offset) != digest.digest():
            raise CorruptError("its checksum differs")

    def has(self, entries: wire.Entries) -> NDArray[np.bool_]:
        """Return for each entry of another map whether this map has the same chunk there.

        Quick for maps that are alike, as those of one disk; for others, some flags can be False
        although this map has the chunk.
        """
        numbers = entries["number"]
        with reading("package", self.where):
            first = self._place_of(int(numbers[0]))
            end = self._place_of(int(numbers[-1]) + 1)
            if not first < end <= first + 2 * len(entries):
                return np.zeros(len(entries), dtype=np.bool_)
            own = np.frombuffer(self._read(first, end - first), dtype=wire.ENTRY)
        if not np.array_equal(own["number"], numbers):
            own = own[np.minimum(np.searchsorted(own["number"], numbers), len(own) - 1)]
        # Compared as numbers; the second one is the pages, which need not be equal.
        is_same = own.view("<u8").reshape(-1, _WORDS) == entries.view("<u8").reshape(-1, _WORDS)
        is_same[:, 1] = True
        all_same: NDArray[np.bool_] = is_same.all(axis=1)
        return all_same

    def read_digest(self) -> str:
        """Return the digest of the image, which follows from the chunks' ids. Blocks.

        Raises:
            CorruptError: the map is damaged.
        """
        digest = ImageDigest(self.head.size_bytes)
        for block in self.blocks():
            add_leaves(digest, block)
        return digest.finish()

    def entry(self, number: int) -> wire.MapEntry | None:
        """Return the entry of a chunk; None for one of zeros."""
        if not self._block or not self._block[0].number <= number <= self._block[-1].number:
            with reading("package", self.where):
                self._seek(number)
        place = bisect_left(self._block, number, key=lambda entry: entry.number)
        if place < len(self._block) and self._block[place].number == number:
            return self._block[place]
        return None

    def close(self) -> None:
        self._file.close()

    def _seek(self, number: int) -> None:
        place = self._place_of(number)
        self._block = list(wire.decode_entries(self._read(place, _ENTRIES_AT_ONCE)))

    def _place_of(self, number: int) -> int:
        """Return the place of the first entry of that chunk, or of a later one."""
        return bisect_left(range(self._count), number, key=self._number_at)

    def _number_at(self, place: int) -> int:
        offset = wire.HEAD_BYTES + place * wire.ENTRY_BYTES
        (entry,) = wire.decode_entries(self._file.read(wire.ENTRY_BYTES, offset))
        return entry.number

    def _read(self, first: int, at_most: int) -> bytes:
        count = min(at_most, self._count - first)
        offset = wire.HEAD_BYTES + first * wire.ENTRY_BYTES
        return self._file.read(count * wire.ENTRY_BYTES, offset)


def open_map(storage: Storage, name: str) -> ChunkMap:
    """Open a map. Blocks.

    Raises:
        FileNotFoundError: it is missing.
        CorruptError: its start or end is damaged, or it cannot be read; ``blocks`` checks the rest.
    """
    with reading("package", storage.where(name)):
        file = storage.open(name)
        try:
            return ChunkMap(name, file)
        except BaseException:
            file.close()
            raise


def add_leaves(digest: ImageDigest, entries: wire.Entries) -> None:
    """Add the ids of a map's entries, which are leaves, to the digest of the map's image."""
    for run in np.split(entries, np.flatnonzero(np.diff(entries["number"]) != 1) + 1):
        digest.add(int(run["number"][0]) * CHUNK_BYTES, run["leaf"].tobytes())


def check_owner(chunk_map: ChunkMap, repository: Repository) -> None:
    """Check that a map belongs to this repository.

    Raises:
        ForeignRepositoryError: it does not.
        CorruptError: it is damaged.
    """
    if chunk_map.head.repository_id != repository.id:
        for _ in chunk_map.blocks():  # if only a bit of the id is wrong, so is the checksum
            pass
        raise ForeignRepositoryError(f"{chunk_map.where} belongs to another repository")


def data_extents(entries: Iterable[wire.MapEntry], size_bytes: int) -> tuple[Extent, ...]:
    """Return the extents with data; if there are very many, close ones are joined."""
    return bounded(
        extent for entry in entries for extent in extents_of(entry.number, entry.pages, size_bytes)
    )

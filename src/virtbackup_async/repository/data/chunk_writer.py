r"""Store chunks in a repository: one that is there already costs a lookup in the index.

::

    chunk --hash--> id --known?--> yes: nothing to store; if somebody else is storing it, wait
                              \--> no: pack (compress), store (append to a pack file)
    65536 new chunks: pack durable, then a segment of the index, durable
    finish:           the same, and of those whose chunks we took for present; then the maps;
                      then: is our lease still there?

One for each backup, called by the packager in worker threads, by all of its disks. Invariant: what
the index names is durable. Memory does not grow with the backup.
"""

from collections.abc import Callable, Iterable, Mapping
from threading import Lock
from typing import Final

import numpy as np
import zstandard
from msgspec import Struct
from numpy.typing import NDArray

from virtbackup_async.errors import LockHeldError, StorageError
from virtbackup_async.repository.data.known_chunks import KnownChunks, Storer, open_known_chunks
from virtbackup_async.repository.data.pack_writer import PackWriter
from virtbackup_async.repository.format.map_format import Leaves
from virtbackup_async.repository.index.merging import merged, worth_merging
from virtbackup_async.repository.index.segment_writer import (
    Content,
    content_of,
    nothing_follows,
    write_segment,
)
from virtbackup_async.repository.index.segments import Location, Segment, open_segment
from virtbackup_async.repository.storage.layout import Repository, segment_file

CHUNKS_A_SEGMENT: Final = 65536
MERGED_AT_ONCE: Final = 8
_DEFAULT_LEVEL: Final = 3


class ChunkWriters:
    """The writers of a process: those of one repository know of each other's chunks."""

    def __init__(self) -> None:
        self._known: dict[Repository, KnownChunks] = {}
        self._turn = Lock()

    def open(self, repository: Repository, level: int) -> "ChunkWriter":
        """Begin to write. Blocks.

        Args:
            repository: which.
            level: of zstd; 0 for the usual one.

        Raises:
            StorageError: the repository is not writable.
            CorruptError: its index is damaged: `verify` tells.
        """
        with self._turn:
            known = self._known.get(repository)
            if known is None or not _is_held(known):
                known = self._known[repository] = open_known_chunks(repository)
            known.users += 1
        return ChunkWriter(self, known, level or _DEFAULT_LEVEL)

    def leave(self, known: KnownChunks, writer: "ChunkWriter") -> None:
        """Take note that a writer has ended; the last one lets the prune work. Blocks."""
        with self._turn:
            known.users -= 1
            known.left.append(writer)
            if known.users:
                return
            if self._known.get(known.repository) is known:
                del self._known[known.repository]
        known.close()


def _is_held(known: KnownChunks) -> bool:
    """Whether more writers may join: not if a prune took this process for dead."""
    try:
        known.lease.check()
    except (LockHeldError, StorageError):
        return False
    return True


class Packed(Struct, frozen=True):
    """Chunks that nobody had, ready for a pack: they must be stored, soon and without fail.

    Attributes:
        blobs: by their ids.
        others: those that somebody else is storing: `wait_for_others` when the blobs are stored.
    """

    blobs: dict[bytes, bytes]
    others: list[bytes]


class ChunkWriter:
    """An open writer; ``publish`` what it stored, then ``close`` it.

    Attributes:
        id_of: returns the id of a chunk, by its leaf.
    """

    def __init__(self, writers: ChunkWriters, known: KnownChunks, level: int) -> None:
        self.is_relied_on = False
        self.relies_on: set[Storer] = set()
        self._writers = writers
        self._known = known
        self._level = level
        self._sealing = known.repository.sealing
        self.id_of = self._sealing.id_of
        self._packs = PackWriter(known.repository, known.token, known.pack_numbers)
        self._unindexed: dict[bytes, Location] = {}
        self._own: list[Segment] = []
        self._turn = Lock()

    def take_problem(self) -> str | None:
        """Return which packs do not fit the index, and so count as not there; told once."""
        return self._known.take_problem()

    def add(self, chunks: Mapping[bytes, memoryview]) -> int:
        """Store what is not there yet of some chunks: the three steps that follow. Blocks."""
        packed = self.pack(chunks)
        return self.store(packed) + self.wait_for_others(packed.others, chunks)

    def pack(self, chunks: Mapping[bytes, memoryview]) -> Packed:
        """Claim and compress what is not there yet of some chunks. Blocks; several threads may.

        Until ``store`` has had it, others may wait for it: nothing else may be waited for before.

        Args:
            chunks: by their ids.

        Raises:
            CorruptError: the index is damaged; nothing is claimed.
        """
        claim = self._known.claim(chunks, self)
        try:
            return Packed(self._blobs({id_: chunks[id_] for id_ in claim.own}), claim.others)
        except BaseException:
            self._known.give_up(claim.own)
            raise

    def store(self, packed: Packed) -> int:
        """Append what was packed; return how many bytes the packs grew by. Blocks.

        Raises:
            StorageError: the target is full or failed; others may store what was packed.
        """
        blobs = packed.blobs
        try:
            with self._turn:
                places = {id_: self._packs.append(blob) for id_, blob in blobs.items()}
                self._unindexed |= places
                self._known.note_stored(places, self)
                if len(self._unindexed) >= CHUNKS_A_SEGMENT:
                    self._write_segment()
        finally:
            self._known.give_up(blobs)
        return sum(map(len, blobs.values()))

    def wait_for_others(self, others: Iterable[bytes], chunks: Mapping[bytes, memoryview]) -> int:
        """Wait until others have stored chunks, and store those that they could not. Blocks.

        Args:
            others: which, of what was packed.
            chunks: what was packed.

        Returns:
            How many bytes the packs grew by.

        Raises:
            StorageError: the target is full or failed.
            CorruptError: the index is damaged.
        """
        stored_bytes = 0
        waiting = list(others)
        while waiting:
            self._known.wait_for(waiting)
            packed = self.pack({id_: chunks[id_] for id_ in waiting})
            stored_bytes += self.store(packed)
            waiting = packed.others
        return stored_bytes

    def are_missing(self, blocks: Iterable[Leaves]) -> NDArray[np.bool_]:
        """Tell for each chunk of an earlier map whether this backup cannot rely on it. Blocks.

        Much faster than ``add``: nothing is read but the index, by the million of chunks.

        Args:
            blocks: the leaves of the map, or some of them; read once.

        Returns:
            For each leaf whether its chunk is missing. None is, unless there is damage, or the
            backup of the map was removed since.

        Raises:
            CorruptError: the index is damaged.
        """
        return self._known.are_missing(map(self._sealing.ids_of, blocks))

    def publish(self) -> None:
        """Make durable, and known to others, what our maps need. Blocks.

        Raises:
            StorageError: the target is full or failed.
        """
        self.publish_own()
        for storer in self.relies_on:
            storer.publish_own()

    def publish_own(self) -> None:
        """Make durable, and known to others, what we have stored so far. Blocks."""
        with self._turn:
            self._write_segment()

    def check(self) -> None:
        """See, the maps being durable, that no prune has given us up. Blocks.

        Raises:
            LockHeldError: one has; the backup must not be published.
            StorageError: neither must it: what was stored is not where it was put.
        """
        self._known.lease.check()
        self._packs.check()

    def refresh(self) -> None:
        """Refresh the lease. Blocks."""
        self._known.lease.refresh()

    def discard(self) -> None:
        """Remove what nobody else counts on. Blocks; may be called again."""
        with self._turn:
            self.relies_on.clear()
            if self._known.forget(self._unindexed, self):
                self._packs.discard()
                self._unindexed.clear()

    def close(self) -> None:
        """Let the prune work. Blocks; what was not published is removed."""
        try:
            self.discard()
        finally:
            self._writers.leave(self._known, self)

    def _blobs(self, chunks: Mapping[bytes, memoryview]) -> dict[bytes, bytes]:
        if not chunks:
            return {}
        compressor = zstandard.ZstdCompressor(level=self._level)
        seal = self._sealing.seal
        return {id_: seal(id_, data, compressor.compress(data)) for id_, data in chunks.items()}

    def _write_segment(self) -> None:
        """Index the appended chunks, after their data is durable."""
        self._packs.seal()
        if not self._unindexed:
            return
        segment = self._new_segment(content_of(self._unindexed.items()), self._packs.note_published)
        self._own.append(segment)
        self._known.note_indexed(self._unindexed, segment, self)
        self._unindexed.clear()
        self._merge_own()

    def _merge_own(self) -> None:
        """Replace many segments by one; only this writer touches its segments."""
        old = worth_merging(self._own)
        if len(old) >= MERGED_AT_ONCE:
            segment = self._new_segment(merged(old), nothing_follows)
            self._own = [segment, *(kept for kept in self._own if kept not in old)]
            self._known.replace(old, segment)

    def _new_segment(self, content: Content, on_named: Callable[[], None]) -> Segment:
        repository = self._known.repository
        name = segment_file(self._known.token, next(self._known.segment_numbers))
        write_segment(repository, name, content, on_named)
        return open_segment(repository, name)

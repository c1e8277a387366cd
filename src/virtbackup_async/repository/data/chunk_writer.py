r"""Store chunks in a repository: a known chunk costs only a lookup in the index.

::

    chunk --hash--> id --known?--> yes: nothing to store; if somebody else is storing it, wait
                              \--> no: pack (compress), store (append to a pack file)
    65536 new chunks: pack durable, then a segment of the index, durable
    finish:           the same, also for writers whose chunks this one relies on; then the maps;
                      then a check that the lease still exists

Each backup has one writer for all of its disks, which the packager calls in worker threads.
Invariant: every chunk that the index names is durable. Memory does not grow with the backup.
"""

from collections.abc import Callable, Iterable, Mapping
from threading import Lock
from typing import Final

import numpy as np
import zstandard
from msgspec import Struct
from numpy.typing import NDArray

from virtbackup_async.errors import LockHeldError, StorageError
from virtbackup_async.repository.data.chunk_reader import ChunkSource
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
BlobsOf = Callable[[Iterable[bytes]], dict[bytes, bytes | bytearray]]
_DEFAULT_LEVEL: Final = 3


class ChunkWriters:
    """The writers of a process; those of one repository know each other's chunks."""

    def __init__(self) -> None:
        self._known: dict[Repository, KnownChunks] = {}
        self._turn = Lock()

    def open(self, repository: Repository, level: int) -> "ChunkWriter":
        """Begin to write. Blocks.

        Args:
            repository: where to write.
            level: of zstd; 0 for the usual one.

        Raises:
            StorageError: the repository is not writable.
            CorruptError: its index is damaged; `verify` shows where.
        """
        with self._turn:
            known = self._known.get(repository)
            if known is None or not _is_held(known):
                known = self._known[repository] = open_known_chunks(repository)
            known.users += 1
        return ChunkWriter(self, known, level or _DEFAULT_LEVEL)

    def leave(self, known: KnownChunks, writer: "ChunkWriter") -> None:
        """Note that a writer has ended; after the last one, a prune can work. Blocks."""
        with self._turn:
            known.users -= 1
            known.left.append(writer)
            if known.users:
                return
            if self._known.get(known.repository) is known:
                del self._known[known.repository]
        known.close()


def _is_held(known: KnownChunks) -> bool:
    """Return whether more writers may join: not if a prune took this process for dead."""
    try:
        known.lease.check()
    except (LockHeldError, StorageError):
        return False
    return True


class Packed(Struct, frozen=True):
    """New chunks, ready for a pack; the caller must store them soon, since others wait for them.

    Attributes:
        blobs: by their ids.
        others: chunks that other writers are storing: `wait_for_others` when the blobs are stored.
    """

    blobs: dict[bytes, bytes | bytearray]
    others: list[bytes]


class ChunkWriter:
    """An open writer; ``publish`` the chunks that it stored, then ``close`` it.

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
        """Return a sentence on packs that do not fit the index and count as missing; only once."""
        return self._known.take_problem()

    def add(self, chunks: Mapping[bytes, memoryview]) -> int:
        """Store those of some chunks that are missing: the three steps below. Blocks."""
        packed = self.pack(chunks)
        return self.store(packed) + self.wait_for_others(packed.others, chunks)

    def pack(self, chunks: Mapping[bytes, memoryview]) -> Packed:
        """Claim and compress those of some chunks that are missing. Blocks; for any thread.

        Other writers may wait for the result until ``store`` has had it, so the caller must not
        wait for anything before that.

        Args:
            chunks: by their ids.

        Raises:
            CorruptError: the index is damaged; nothing is claimed.
        """
        return self._pack(chunks, lambda ids: self._blobs({id_: chunks[id_] for id_ in ids}))

    def pack_from(self, source: ChunkSource, leaves: Mapping[bytes, bytes]) -> Packed:
        """Claim those of another repository's chunks that are missing; read them. As ``pack``.

        If both repositories seal alike, the blobs are taken as they are, once they have been
        compared with their ids; otherwise, the chunks are compressed and sealed anew.

        Args:
            source: the other repository.
            leaves: of the chunks, by their ids in this repository.

        Raises:
            CorruptError: an index or a chunk is damaged or missing; nothing is claimed.
        """
        return self._pack(leaves, lambda ids: self._taken(source, leaves, ids))

    def _pack(self, ids: Iterable[bytes], blobs_of: BlobsOf) -> Packed:
        claim = self._known.claim(ids, self)
        try:
            return Packed(blobs_of(claim.own), claim.others)
        except BaseException:
            self._known.give_up(claim.own)
            raise

    def _taken(
        self, source: ChunkSource, leaves: Mapping[bytes, bytes], ids: Iterable[bytes]
    ) -> dict[bytes, bytes | bytearray]:
        if source.sealing == self._sealing:
            if self._sealing.run_keys is not None and source.sealing.run_keys is not None:
                self._sealing.run_keys.learn_from(source.sealing.run_keys)
            return {id_: source.read_sealed(leaves[id_]) for id_ in ids}
        return self._blobs({id_: memoryview(source.read(leaves[id_])) for id_ in ids})

    def store(self, packed: Packed) -> int:
        """Append packed chunks; return by how many bytes the packs grew. Blocks.

        Raises:
            StorageError: the target is full or failed; other writers may store the chunks.
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
            others: the ids of those chunks.
            chunks: the chunks that were packed.

        Returns:
            By how many bytes the packs grew.

        Raises:
            StorageError: the target is full or failed.
            CorruptError: the index is damaged.
        """
        return self.wait_and_pack(others, lambda ids: self.pack({id_: chunks[id_] for id_ in ids}))

    def wait_and_pack(
        self, others: Iterable[bytes], pack: Callable[[Iterable[bytes]], Packed]
    ) -> int:
        """Do the same with a function that packs the chunks of some ids. Blocks."""
        stored_bytes = 0
        waiting = list(others)
        while waiting:
            self._known.wait_for(waiting)
            packed = pack(waiting)
            stored_bytes += self.store(packed)
            waiting = packed.others
        return stored_bytes

    def are_missing(self, blocks: Iterable[Leaves]) -> NDArray[np.bool_]:
        """Return for each chunk of an earlier map whether it is missing. Blocks.

        Much faster than ``add``: this reads only the index, for millions of chunks at once.

        Args:
            blocks: the leaves of the map, or some of them; read once.

        Returns:
            A flag for each leaf. None is set unless there is damage, or the backup of the map was
            removed since.

        Raises:
            CorruptError: the index is damaged.
        """
        return self._known.are_missing(map(self._sealing.ids_of, blocks))

    def publish(self) -> None:
        """Make all chunks that the maps need durable, and index them. Blocks.

        Raises:
            StorageError: the target is full or failed.
        """
        self.publish_own()
        for storer in self.relies_on:
            storer.publish_own()

    def publish_own(self) -> None:
        """Make all chunks stored so far durable, and index them. Blocks."""
        with self._turn:
            self._write_segment()

    def check(self) -> None:
        """Check, once the maps are durable, that no prune took the writer for dead. Blocks.

        After an error the backup must not be published.

        Raises:
            LockHeldError: a prune did.
            StorageError: a pack or the index was moved or removed.
        """
        self._known.lease.check()
        self._packs.check()

    def refresh(self) -> None:
        """Refresh the lease. Blocks."""
        self._known.lease.refresh()

    def discard(self) -> None:
        """Remove the packs that no other writer relies on. Blocks; can be called again."""
        with self._turn:
            self.relies_on.clear()
            if self._known.forget(self._unindexed, self):
                self._packs.discard()
                self._unindexed.clear()

    def close(self) -> None:
        """Give up the lease, so that a prune can work; remove unpublished packs. Blocks."""
        try:
            self.discard()
        finally:
            self._writers.leave(self._known, self)

    def _blobs(self, chunks: Mapping[bytes, memoryview]) -> dict[bytes, bytes | bytearray]:
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
        if len(old) >= MERGED_AT_ONCE and self._known.can_replace:
            segment = self._new_segment(merged(old), nothing_follows)
            self._own = [segment, *(kept for kept in self._own if kept not in old)]
            self._known.replace(old, segment)

    def _new_segment(self, content: Content, on_named: Callable[[], None]) -> Segment:
        repository = self._known.repository
        name = segment_file(self._known.token, next(self._known.segment_numbers))
        write_segment(repository, name, content, on_named)
        return open_segment(repository, name)

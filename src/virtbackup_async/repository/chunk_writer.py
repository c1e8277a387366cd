r"""Putting chunks into a repository: those that are there already cost a look into the index.

::

    chunk --hash--> id --in the index, or ours?--> yes: nothing to store
                                              \--> no: compress, append to a pack
    65536 new chunks: pack durable, then a segment of the index, durable
    finish:           the same; then the maps; then: is our lease still there?

One for each backup, called by the packager in worker threads, by all of its disks. Invariants: the
lease is there before the index is looked at, and packs that the sweep has condemned by then do not
count as there; what the index names is durable. Memory does not grow with the backup.
"""

from collections.abc import Iterable, Sequence
from threading import Lock
from typing import Final

import zstandard

from virtbackup_async.repository.condemned import read_condemned
from virtbackup_async.repository.layout import Repository, new_token
from virtbackup_async.repository.leases import Lease, take_lease
from virtbackup_async.repository.lookup import missing_ids
from virtbackup_async.repository.pack_format import BlobHead, Method, encode_blob_head
from virtbackup_async.repository.pack_writer import PackWriter
from virtbackup_async.repository.segment_writer import merged, write_segment
from virtbackup_async.repository.segments import Location, Segment, open_index, open_segment

CHUNKS_A_SEGMENT: Final = 65536
MERGED_AT_ONCE: Final = 8
_DEFAULT_LEVEL: Final = 3


class ChunkWriter:
    """An open writer; ``publish`` what it stored, then ``close`` it."""

    def __init__(self, repository: Repository, lease: Lease, level: int) -> None:
        self._repository = repository
        self._token = lease.path.name
        self._lease = lease
        self._condemned = read_condemned(repository).packs
        self._index = open_index(repository)
        self._packs = PackWriter(repository, self._token)
        self._level = level or _DEFAULT_LEVEL
        self._turn = Lock()
        self._unindexed: dict[bytes, Location | None] = {}
        self._own: list[Segment] = []
        self._made_segments = 0

    def add(self, chunks: Sequence[tuple[bytes, memoryview]], *, threads: int) -> int:
        """Store what is not there yet of some chunks. Blocks; several threads may.

        Args:
            chunks: each one's id, and its bytes.
            threads: how many may compress at once.

        Returns:
            How many bytes the packs grew by.

        Raises:
            StorageError: the target is full or failed.
            CorruptError: the index is damaged.
        """
        with self._turn:
            fresh = [chunk for chunk in chunks if self._reserve(chunk[0])]
        if not fresh:
            return 0
        blobs = self._blobs(fresh, threads)
        with self._turn:
            for id_, blob in blobs:
                self._unindexed[id_] = self._packs.append(blob)
            if len(self._unindexed) >= CHUNKS_A_SEGMENT:
                self._write_segment()
        return sum(len(blob) for _, blob in blobs)

    def missing(self, ids: bytes | bytearray | memoryview) -> list[int]:
        """Return which chunks of an earlier map this backup cannot count on. Blocks.

        Much faster than ``add``: nothing is read but the index, and that in one pass. So give it
        many ids at once: ``lookup.IDS_AT_ONCE``, which bounds the memory.

        Args:
            ids: 32 bytes each, one behind the other, in any order.

        Returns:
            The places of those that are missing, ascending; none, unless there is damage, or the
            map's backup was removed since.

        Raises:
            CorruptError: the index is damaged.
        """
        with self._turn:
            places = missing_ids(self._index, ids, self._condemned)
        return [int(place) for place in places]

    def publish(self) -> None:
        """Make durable, and known to others, what was stored. Blocks.

        Raises:
            StorageError: the target is full or failed.
        """
        with self._turn:
            self._write_segment()

    def check(self) -> None:
        """See, the maps being durable, that no sweep has given us up. Blocks.

        Raises:
            LockHeldError: one has; the backup must not be published.
        """
        self._lease.check()

    def refresh(self) -> None:
        """Tell the sweep, on whatever host, that we live. Blocks."""
        self._lease.refresh()

    def discard(self) -> None:
        """Remove what nobody else can have seen. Blocks; may be called again."""
        with self._turn:
            self._packs.discard()
            self._unindexed.clear()

    def close(self) -> None:
        """Let the sweep work. Blocks; what was not published is removed."""
        try:
            self.discard()
        finally:
            self._index.close()
            self._lease.release()

    def _reserve(self, id_: bytes) -> bool:
        """Tell whether a chunk is to be stored, by whoever asks first."""
        if id_ in self._unindexed or self._index.find(id_, self._condemned) is not None:
            return False
        self._unindexed[id_] = None
        return True

    def _blobs(
        self, fresh: Sequence[tuple[bytes, memoryview]], threads: int
    ) -> list[tuple[bytes, bytes]]:
        compressor = zstandard.ZstdCompressor(level=self._level)
        pieces: list[bytes | bytearray | memoryview[int]] = [piece for _, piece in fresh]
        packed = compressor.multi_compress_to_buffer(pieces, threads=threads)
        return [
            (id_, encode_blob(id_, piece, packed[place].tobytes()))
            for place, (id_, piece) in enumerate(fresh)
        ]

    def _write_segment(self) -> None:
        """Put the places of what was appended into the index, behind the data."""
        self._packs.seal()
        places = sorted((id_, at) for id_, at in self._unindexed.items() if at is not None)
        if not places:
            return
        self._own.append(self._new_segment(places, len(places)))
        self._packs.note_published()
        # What another disk is compressing right now comes with the next segment.
        self._unindexed = {id_: None for id_, at in self._unindexed.items() if at is None}
        self._merge_own()

    def _merge_own(self) -> None:
        """Put one segment in the place of equally large ones; nobody else touches ours."""
        while len(self._own) >= MERGED_AT_ONCE:
            youngest = self._own[-MERGED_AT_ONCE:]
            if youngest[0].shape.records > 2 * youngest[-1].shape.records:
                return
            records = sum(segment.shape.records for segment in youngest)
            self._own[-MERGED_AT_ONCE:] = [self._new_segment(merged(youngest), records)]
            for segment in youngest:
                self._index.remove(segment)

    def _new_segment(self, places: Iterable[tuple[bytes, Location]], at_most: int) -> Segment:
        path = self._repository.segment_path(self._token, self._made_segments)
        write_segment(self._repository, path, places, at_most)
        self._made_segments += 1
        segment = open_segment(path, self._repository)
        self._index.segments.append(segment)
        return segment


def open_chunk_writer(repository: Repository, level: int) -> ChunkWriter:
    """Begin to write, under a lease of its own. Blocks.

    Args:
        repository: which.
        level: of zstd; 0 for the usual one.

    Raises:
        StorageError: the repository is not writable.
        CorruptError: its index is damaged: `verify` tells.
    """
    lease = take_lease(repository.leases, new_token())
    try:
        return ChunkWriter(repository, lease, level)
    except BaseException:
        lease.release()
        raise


def encode_blob(id_: bytes, data: memoryview, compressed: bytes) -> bytes:
    """Return what a pack holds of a chunk: compressed, unless that is no gain."""
    method, payload = Method.ZSTD, compressed
    if len(compressed) >= len(data):
        method, payload = Method.AS_IT_IS, bytes(data)
    return encode_blob_head(BlobHead(id_, method, len(data), len(payload))) + payload

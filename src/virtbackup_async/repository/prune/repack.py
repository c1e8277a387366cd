"""Copying needed chunks out of packs that are mostly unneeded.

Called by the prune. Each chunk is read and compared with its id: a damaged one is not copied, and
every pack that has it stays, since another copy may be good. The copies are durable and in the
index before the old packs become pending deletion.

Repacking needs space before it frees any. Where space is short, a few packs are repacked in each
round, and the next round has more.
"""

from collections.abc import Iterable, Mapping
from itertools import count
from typing import Final

from virtbackup_async.errors import CorruptError
from virtbackup_async.repository.data.chunk_reader import ChunkReader
from virtbackup_async.repository.data.pack_writer import PackWriter
from virtbackup_async.repository.format.index_format import RECORD_BYTES
from virtbackup_async.repository.index.segment_writer import content_of, write_segment
from virtbackup_async.repository.index.segments import Location
from virtbackup_async.repository.prune.mark import Need
from virtbackup_async.repository.storage.layout import Repository, segment_file

CHUNKS_A_SEGMENT: Final = 65536
# For the heads of packs and segments, the note, and names.
_MARGIN_BYTES: Final = 256 * 1024

Place = tuple[bytes, Location]


def fitting(copied: Mapping[bytes, Need], free_bytes: int, most_packs: int) -> dict[bytes, Need]:
    """Return the packs whose needed chunks together fit into some space, fewest bytes first."""
    free_bytes -= _MARGIN_BYTES
    found: dict[bytes, Need] = {}
    for pack, need in sorted(copied.items(), key=lambda item: (item[1].length_bytes, item[0])):
        free_bytes -= need.length_bytes + need.chunks * RECORD_BYTES
        if free_bytes < 0 or len(found) == most_packs:
            break
        found[pack] = need
    return found


class Repack:
    """The copies of one prune, in packs of its own; ``close`` it.

    Attributes:
        copied_bytes: the length of the copied blobs.
        staying: the packs that have a chunk of which a damaged copy was found.
    """

    def __init__(self, repository: Repository, token: str) -> None:
        self.copied_bytes = 0
        self.staying: frozenset[bytes] = frozenset()
        self._repository = repository
        self._token = token
        self._packs = PackWriter(repository, token, count())
        self._chunks = ChunkReader(repository)
        self._copies: list[Place] = []
        self._segments = 0

    def copy(self, places: Iterable[Place]) -> None:
        """Copy chunks, durably, except damaged ones. Blocks.

        Raises:
            StorageError: the target is full or not writable.
        """
        for id_, location in places:
            try:
                blob = self._chunks.read_blob(id_, location)
            except CorruptError:
                self.staying |= self._chunks.packs_of(id_) | {location.pack}
                continue
            self._copies.append((id_, self._packs.append(blob)))
            self.copied_bytes += len(blob)
            if len(self._copies) >= CHUNKS_A_SEGMENT:
                self._publish()
        self._publish()

    def close(self) -> None:
        """Remove the packs that the index does not name. Blocks."""
        try:
            self._packs.discard()
        finally:
            self._chunks.close()

    def _publish(self) -> None:
        self._packs.seal()
        if self._copies:
            name = segment_file(self._token, self._segments)
            self._segments += 1
            write_segment(
                self._repository, name, content_of(self._copies), self._packs.note_published
            )
            self._copies.clear()

"""How much a repository holds, without reading its maps: for ``stats``.

The lengths of the maps show how many chunks the images consist of; the index shows how many
different chunks there are, and their size. Chunks that no backup needs count until the next prune.
"""

from collections.abc import Callable
from contextlib import closing, suppress

from msgspec import Struct

from virtbackup_async.files.refusals import reading
from virtbackup_async.repository.format.map_format import entry_count
from virtbackup_async.repository.index.segments import Segment, open_index
from virtbackup_async.repository.storage.interface import Storage
from virtbackup_async.repository.storage.layout import (
    ListMaps,
    Repository,
    list_packs,
    pack_sizes,
)


class Totals(Struct, frozen=True):
    """Counts of a repository.

    Attributes:
        mapped_chunks: how many chunks all images consist of.
        chunks: how many different chunks there are.
        chunk_stored_bytes: the length of their blobs.
        pack_bytes: the length of all packs.
    """

    mapped_chunks: int
    chunks: int
    chunk_stored_bytes: int
    pack_bytes: int


def total_usage(repository: Repository, list_maps: ListMaps, on_step: Callable[[], None]) -> Totals:
    """Return how much a repository holds. Blocks.

    Args:
        repository: the repository to measure.
        list_maps: lists the maps of its target.
        on_step: called often; may raise.

    Raises:
        CorruptError: a map or the index is damaged.
        StorageError: it cannot be read.
    """
    with closing(open_index(repository)) as index:
        return Totals(
            mapped_chunks=sum(_entries(repository.storage, file.name) for file in list_maps()),
            chunks=sum(segment.shape.records for segment in index.segments),
            chunk_stored_bytes=sum(_stored_bytes(segment, on_step) for segment in index.segments),
            pack_bytes=sum(pack_sizes(repository.storage, list_packs(repository.storage)).values()),
        )


def _entries(storage: Storage, name: str) -> int:
    # Its backup might have been removed since the maps were listed.
    with suppress(FileNotFoundError), reading("package", storage.where(name)):
        return entry_count(storage.status(name).size_bytes)
    return 0


def _stored_bytes(segment: Segment, on_step: Callable[[], None]) -> int:
    total_bytes = 0
    for first, end in segment.parts():
        on_step()
        total_bytes += int(segment.read_records(first, end)["length"].sum(dtype="u8"))
    return total_bytes

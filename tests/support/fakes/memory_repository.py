"""A repository in memory, whose chunks are those of ``small_repository.content``."""

from collections.abc import Sequence
from contextlib import closing

from fakes.memory_storage import MemoryStorage
from fakes.small_repository import content
from virtbackup_async.repository.data.chunk_writer import ChunkWriters
from virtbackup_async.repository.data.maps import MapWriter
from virtbackup_async.repository.format.chunks import ALL_PAGES, CHUNK_BYTES, chunk_id
from virtbackup_async.repository.format.map_format import MapEntry, MapHead, entries_of
from virtbackup_async.repository.index.id_batches import Ids, ids_of
from virtbackup_async.repository.index.segments import Location, open_index
from virtbackup_async.repository.storage.layout import Repository
from virtbackup_async.repository.storage.repository_file import make_in

IDS = {number: chunk_id(content([number])) for number in range(1, 10)}


def ids(*numbers: int) -> Ids:
    """The ids of chunks."""
    return ids_of(b"".join(IDS[n] for n in numbers))


def on_step() -> None:
    """Go on."""


def make_memory_repository() -> Repository:
    """An empty repository in a target with the directory ``web``."""
    made = make_in(MemoryStorage())
    made.storage.make_directory("web")
    return made


def store_chunks(repository: Repository, *numbers: int) -> dict[int, Location]:
    """Store chunks, as a backup does, in a pack and a segment of their own; where they are."""
    before = set(places_in(repository))
    with closing(ChunkWriters().open(repository, 1)) as writer:
        writer.add({IDS[n]: memoryview(content([n])) for n in numbers})
        writer.publish()
    number_of = {id_: number for number, id_ in IDS.items()}
    return {number_of[id_]: place for id_, place in set(places_in(repository)) - before}


def places_in(repository: Repository) -> list[tuple[bytes, Location]]:
    """Every place that the index has."""
    with closing(open_index(repository)) as index:
        return [
            (
                record["id"].tobytes(),
                Location(
                    segment.packs[record["pack"]], int(record["offset"]), int(record["length"])
                ),
            )
            for segment in index.segments
            for record in segment.read_records(0, segment.shape.records)
        ]


def write_map(repository: Repository, name: str, numbers: Sequence[int]) -> None:
    """Write the map of an image of these chunks; 0 is one of zeros."""
    image = MapWriter(repository.storage, name, MapHead(repository.id, len(numbers) * CHUNK_BYTES))
    entries = [MapEntry(at, ALL_PAGES, IDS[n]) for at, n in enumerate(numbers) if n]
    image.add(entries_of(entries))
    image.finish()
    image.publish()

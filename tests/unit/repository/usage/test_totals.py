"""repository/usage/totals.py: how much there is, by lengths alone."""

from contextlib import closing

import pytest

from fakes.memory_storage import MemoryStorage
from fakes.small_repository import content
from virtbackup_async.errors import CorruptError
from virtbackup_async.repository import (
    CHUNK_BYTES,
    ChunkWriters,
    MapEntry,
    MapFile,
    MapHead,
    MapWriter,
    entries_of,
)
from virtbackup_async.repository.format.chunks import ALL_PAGES, chunk_id
from virtbackup_async.repository.index.segments import open_index
from virtbackup_async.repository.storage.layout import list_packs, pack_file
from virtbackup_async.repository.storage.repository_file import make_in
from virtbackup_async.repository.usage.totals import Totals, total_usage

MAPS = ("web/a.map", "web/b.map")


@pytest.fixture
def repository():
    made = make_in(MemoryStorage())
    made.storage.make_directory("web")
    return made


def store(repository, *numbers):
    """Store chunks in a pack and a segment of their own; the lengths of their blobs."""
    before = sum(lengths(repository))
    with closing(ChunkWriters().open(repository, 1)) as writer:
        writer.add({chunk_id(content([n])): memoryview(content([n])) for n in numbers})
        writer.publish()
    return sum(lengths(repository)) - before


def lengths(repository):
    with closing(open_index(repository)) as index:
        return [
            int(length)
            for segment in index.segments
            for length in segment.read_records(0, segment.shape.records)["length"]
        ]


def write_map(repository, name, numbers):
    image = MapWriter(repository.storage, name, MapHead(repository.id, 9 * CHUNK_BYTES))
    image.add(entries_of([MapEntry(n, ALL_PAGES, chunk_id(content([n]))) for n in numbers]))
    image.finish()
    image.publish()


def totals(repository, on_step=lambda: None, names=MAPS):
    return total_usage(repository, lambda: [MapFile(name, name) for name in names], on_step)


def test_an_empty_repository_holds_nothing(repository):
    assert totals(repository, names=()) == Totals(0, 0, 0, 0)


def test_maps_chunks_blobs_and_packs_are_counted(repository):
    blobs = store(repository, 1, 2, 3) + store(repository, 4)
    write_map(repository, "web/a.map", [1, 2, 3])
    write_map(repository, "web/b.map", [2, 4])
    packs = [pack_file(pack) for pack in list_packs(repository.storage)]
    assert len(packs) == 2
    sizes = sum(repository.storage.sizes(packs).values())
    assert sizes == blobs + 2 * 64
    assert totals(repository) == Totals(5, 4, blobs, sizes)


def test_a_map_that_was_removed_this_moment_counts_nothing(repository):
    write_map(repository, "web/a.map", [1, 2, 3])
    assert totals(repository).mapped_chunks == 3


def test_a_map_that_is_cut_off_is_an_error(repository):
    repository.storage.put_new("web/a.map", b"short")
    with pytest.raises(CorruptError, match="web/a.map"):
        totals(repository)


def test_it_can_be_stopped(repository):
    store(repository, 1)
    store(repository, 2)
    steps = []
    totals(repository, lambda: steps.append(1))
    assert len(steps) == 2

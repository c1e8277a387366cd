"""repository/usage/totals.py: how much there is, by lengths alone."""

import pytest

from fakes.memory_repository import make_memory_repository, store_chunks, write_map
from virtbackup_async.errors import CorruptError
from virtbackup_async.repository import MapFile
from virtbackup_async.repository.storage.layout import list_packs, pack_file
from virtbackup_async.repository.usage.totals import Totals, total_usage

MAPS = ("web/a.map", "web/b.map")


@pytest.fixture
def repository():
    return make_memory_repository()


def totals(repository, on_step=lambda: None, names=MAPS):
    return total_usage(repository, lambda: [MapFile(name, name) for name in names], on_step)


def test_an_empty_repository_holds_nothing(repository):
    assert totals(repository, names=()) == Totals(0, 0, 0, 0)


def test_maps_chunks_blobs_and_packs_are_counted(repository):
    stored = store_chunks(repository, 1, 2, 3) | store_chunks(repository, 4)
    blobs = sum(place.length for place in stored.values())
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
    with pytest.raises(CorruptError, match=r"web/a\.map"):
        totals(repository)


def test_it_can_be_stopped(repository):
    store_chunks(repository, 1)
    store_chunks(repository, 2)
    steps = []
    totals(repository, lambda: steps.append(1))
    assert len(steps) == 2

"""repository/check/repair.py: what the index gets anew, and how much of it at a time."""

from contextlib import closing

import pytest

from fakes.memory_repository import make_memory_repository, places_in, store_chunks
from virtbackup_async.repository.check import repair
from virtbackup_async.repository.check.repair import reindex_packs
from virtbackup_async.repository.index.segments import open_index
from virtbackup_async.repository.storage.layout import list_segments


@pytest.fixture
def repository():
    """Three packs with six chunks, each in the index."""
    made = make_memory_repository()
    for numbers in ((1, 2, 3), (4, 5), (6,)):
        store_chunks(made, *numbers)
    return made


def lose_index(repository):
    for name in [*list_segments(repository.storage)]:
        repository.storage.remove(name)


def on_step():
    """Go on."""


@pytest.mark.parametrize(("at_once", "segments"), [(65536, 1), (3, 2), (1, 3)])
def test_each_lost_chunk_is_indexed_once_however_many_fit_into_memory(
    repository, monkeypatch, at_once, segments
):
    monkeypatch.setattr(repair, "CHUNKS_A_SEGMENT", at_once)
    before = sorted(places_in(repository))
    lose_index(repository)
    assert reindex_packs(repository, on_step) == (6, 0)
    assert sorted(places_in(repository)) == before
    assert len([*list_segments(repository.storage)]) == segments
    assert reindex_packs(repository, on_step) == (0, 0)


def test_a_repair_can_be_ended_at_each_chunk_and_loses_nothing(repository):
    class EndedError(Exception):
        pass

    lose_index(repository)
    left = 4

    def end():
        nonlocal left
        left -= 1
        if not left:
            raise EndedError

    with pytest.raises(EndedError):
        reindex_packs(repository, end)
    with closing(open_index(repository)) as index:
        assert not index.segments
    assert reindex_packs(repository, on_step) == (6, 0)

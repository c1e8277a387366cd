"""repository/check/repair.py: what the index gets anew, and how much of it at a time."""

from contextlib import closing

import pytest

from fakes.memory_repository import IDS, make_memory_repository, on_step, places_in, store_chunks
from virtbackup_async.repository.check import repair
from virtbackup_async.repository.check.check import Check
from virtbackup_async.repository.check.repair import drop_bad_entries, reindex_packs
from virtbackup_async.repository.index.segment_writer import (
    content_of,
    nothing_follows,
    write_segment,
)
from virtbackup_async.repository.index.segments import open_index
from virtbackup_async.repository.storage.layout import (
    list_segments,
    new_token,
    pack_file,
    segment_file,
    segment_token,
)
from virtbackup_async.repository.storage.leases import take_lease


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


def test_a_segment_that_cannot_be_read_goes_unless_its_writer_is_at_work(repository):
    names = [*list_segments(repository.storage)]
    for name in names:
        repository.storage.files[name].data[-1] ^= 1
    lease = take_lease(repository.storage, segment_token(names[0]))
    count, removed = reindex_packs(repository, on_step)
    assert removed == 2
    assert names[0] in list_segments(repository.storage)
    assert not set(names[1:]) & set(list_segments(repository.storage))
    lease.close()
    more, removed = reindex_packs(repository, on_step)
    assert (count + more, removed) == (6, 1)
    assert len(places_in(repository)) == 6


@pytest.mark.parametrize("bad", [{1}, {4}, {6}, {1, 2, 3}, {4, 5, 6}, {2, 5}, set(range(1, 7))])
def test_the_good_records_of_a_merged_segment_stay_with_their_packs(bad):
    merged = make_memory_repository()
    places = {}
    for numbers in ((1, 2, 3), (4, 5), (6,)):
        places.update(store_chunks(merged, *numbers))
    for name in [*list_segments(merged.storage)]:
        merged.storage.remove(name)
    content = content_of([(IDS[n], location) for n, location in places.items()])
    write_segment(merged, segment_file(new_token(), 0), content, nothing_follows)
    for n in bad:
        location = places[n]
        merged.storage.files[pack_file(location.pack)].data[location.offset + 70] ^= 1
    with closing(open_index(merged)) as index:
        checking = Check(merged, index, frozenset())
        checking.need_all()
        checking.look_at_packs(on_step)
        for run in checking.runs(on_step):
            checking.check(run)
        assert drop_bad_entries(merged, checking) == (len(bad), 0)
    left = {n: location for n, location in places.items() if n not in bad}
    assert sorted(places_in(merged)) == sorted((IDS[n], where) for n, where in left.items())
    with closing(open_index(merged)) as index:
        packs = {pack for segment in index.segments for pack in segment.packs}
    assert packs == {location.pack for location in left.values()}, "no pack without a chunk"


def test_bad_records_of_a_writer_at_work_stay(repository):
    (name, *_) = list_segments(repository.storage)
    with closing(open_index(repository)) as index:
        checking = Check(repository, index, frozenset())
        for segment, bad in zip(index.segments, checking.bad, strict=True):
            bad[:] = True
            if segment.name == name:
                count = len(bad)
        lease = take_lease(repository.storage, segment_token(name))
        assert drop_bad_entries(repository, checking) == (6 - count, count)
        lease.close()
    assert list_segments(repository.storage) == [name]

"""repository/check/lost_ranges.py: what a map needs, and what of its image is lost."""

from contextlib import closing

import pytest

from fakes.memory_repository import IDS, make_memory_repository, on_step, store_chunks, write_map
from virtbackup_async.errors import CorruptError, ForeignRepositoryError
from virtbackup_async.images.extents import PAGE_BYTES
from virtbackup_async.model.extent import Extent
from virtbackup_async.repository.check import lost_ranges
from virtbackup_async.repository.check.check import Check
from virtbackup_async.repository.check.lost_ranges import (
    MAX_RANGES,
    LostRanges,
    lost_ranges_of,
    need_map,
)
from virtbackup_async.repository.data.maps import MapWriter, open_map
from virtbackup_async.repository.format.chunks import ALL_PAGES, CHUNK_BYTES
from virtbackup_async.repository.format.map_format import MapEntry, MapHead, entries_of
from virtbackup_async.repository.index.segments import open_index

MAP = "web/a.map"


@pytest.fixture
def repository():
    made = make_memory_repository()
    store_chunks(made, 1, 2, 3)
    return made


def facts(repository, name=MAP, recorded_bytes=None, on_step=on_step):
    with closing(open_index(repository)) as index:
        check = Check(repository, index, frozenset())
        return need_map(repository, name, check, on_step, recorded_bytes), check.count_needed()


def lost(repository, name=MAP, on_step=on_step):
    """The lost ranges of an image, of whose chunks nothing is damaged."""
    with closing(open_index(repository)) as index:
        check = Check(repository, index, frozenset())
        need_map(repository, name, check, lambda: None)
        return lost_ranges_of(repository, name, check, on_step)


def extents(*chunks):
    return tuple(Extent(first * CHUNK_BYTES, count * CHUNK_BYTES) for first, count in chunks)


@pytest.mark.parametrize("ids_at_once", [1, 2, 100])
def test_all_chunks_of_a_map_are_needed_and_the_missing_ones_counted(
    repository, monkeypatch, ids_at_once
):
    monkeypatch.setattr(lost_ranges, "IDS_AT_ONCE", ids_at_once)
    write_map(repository, MAP, [1, 0, 2, 8, 2, 9])
    found, needed = facts(repository)
    assert (found.missing, needed, found.data_bytes) == (2, 2, 5 * CHUNK_BYTES)
    with closing(open_map(repository.storage, MAP)) as chunk_map:
        assert found.digest == chunk_map.read_digest()


def test_data_ends_where_the_image_does(repository):
    """The first chunk has two pages of data, and the last page is cut by the end of the image."""
    size_bytes = CHUNK_BYTES + PAGE_BYTES + 100
    written = MapWriter(repository.storage, MAP, MapHead(repository.id, size_bytes))
    entries = [MapEntry(0, 0b101, IDS[1]), MapEntry(1, 0b11, IDS[2])]
    written.add(entries_of(entries))
    written.finish()
    written.publish()
    found, _ = facts(repository, recorded_bytes=size_bytes)
    assert found.data_bytes == written.data_bytes == 2 * PAGE_BYTES + PAGE_BYTES + 100
    for other, how in ((size_bytes - 1, "1 B more"), (size_bytes + 1, "1 B less"), (0, "more")):
        with pytest.raises(CorruptError, match=f"web/a.map is .* long, .*{how} than was recorded"):
            facts(repository, recorded_bytes=other)


def test_an_image_of_zeros_needs_nothing(repository):
    written = MapWriter(repository.storage, MAP, MapHead(repository.id, 5))
    written.finish()
    written.publish()
    found, needed = facts(repository)
    assert (found.data_bytes, found.missing, needed) == (0, 0, 0)
    assert lost(repository) == LostRanges()


def test_a_map_of_another_repository_is_refused(repository):
    written = MapWriter(repository.storage, MAP, MapHead(b"x" * 16, CHUNK_BYTES))
    written.add(entries_of([MapEntry(0, ALL_PAGES, IDS[1])]))
    written.finish()
    written.publish()
    with pytest.raises(ForeignRepositoryError):
        facts(repository)


@pytest.mark.parametrize("read", [facts, lost])
def test_reading_a_map_can_be_ended(repository, read):
    write_map(repository, MAP, [1])

    class EndedError(Exception):
        pass

    def end():
        raise EndedError

    with pytest.raises(EndedError):
        read(repository, on_step=end)
    with pytest.raises(FileNotFoundError):
        read(repository, "web/gone.map")


@pytest.mark.parametrize("read", [facts, lost])
@pytest.mark.parametrize("owner", ["own", "other"])
def test_no_map_stays_open(repository, monkeypatch, read, owner):
    repository_id = repository.id if owner == "own" else b"x" * 16
    written = MapWriter(repository.storage, MAP, MapHead(repository_id, CHUNK_BYTES))
    written.add(entries_of([MapEntry(0, ALL_PAGES, IDS[1])]))
    written.finish()
    written.publish()
    opened, closed = [], []

    def open_watched(storage, name):
        found = open_map(storage, name)
        opened.append(found)
        monkeypatch.setattr(found, "close", lambda: closed.append(found))
        return found

    monkeypatch.setattr(lost_ranges, "open_map", open_watched)
    if owner == "own":
        read(repository)
    else:
        with pytest.raises(ForeignRepositoryError):
            read(repository)
    assert opened
    assert closed == opened


@pytest.mark.parametrize("ids_at_once", [1, 2, 100])
def test_lost_chunks_that_touch_are_one_range(repository, monkeypatch, ids_at_once):
    monkeypatch.setattr(lost_ranges, "IDS_AT_ONCE", ids_at_once)
    write_map(repository, MAP, [8, 9, 1, 8, 0, 8, 7, 6, 2])
    assert lost(repository) == LostRanges(6 * CHUNK_BYTES, extents((0, 2), (3, 1), (5, 3)))
    write_map(repository, "web/b.map", [1, 2, 8])
    assert lost(repository, "web/b.map") == LostRanges(CHUNK_BYTES, extents((2, 1)))


def test_a_lost_range_ends_where_the_image_does(repository):
    size_bytes = CHUNK_BYTES + 100
    written = MapWriter(repository.storage, MAP, MapHead(repository.id, size_bytes))
    written.add(entries_of([MapEntry(0, ALL_PAGES, IDS[8]), MapEntry(1, 1, IDS[9])]))
    written.finish()
    written.publish()
    assert lost(repository) == LostRanges(size_bytes, (Extent(0, size_bytes),))


@pytest.mark.parametrize("more", [-1, 0, 1, 2])
def test_however_much_is_lost_only_the_first_ranges_are_told(repository, more):
    """Each lost range has one chunk, but the last one has two."""
    count = MAX_RANGES + more
    write_map(repository, MAP, [8, 1] * (count - 1) + [8, 9])
    told = [(2 * place, 1) for place in range(count - 1)] + [(2 * (count - 1), 2)]
    found = lost(repository)
    assert found.lost_bytes == (count + 1) * CHUNK_BYTES
    assert found.more_ranges == max(0, more)
    assert found.ranges == extents(*told[:MAX_RANGES])

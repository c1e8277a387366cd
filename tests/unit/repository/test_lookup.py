"""Looking up many ids at once finds what looking up each of them finds."""

import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.small_repository import ids_of
from virtbackup_async.errors import CorruptError
from virtbackup_async.repository import lookup
from virtbackup_async.repository.chunk_writer import ChunkWriters
from virtbackup_async.repository.chunks import chunk_id
from virtbackup_async.repository.lookup import NOWHERE, SortedIds, find_all, missing_ids
from virtbackup_async.repository.segment_writer import content_of, write_segment
from virtbackup_async.repository.segments import Location, open_index
from virtbackup_async.repository.store import make_repository

# Few of everything: ids that begin alike, or are there twice, are what may go wrong.
IDS = st.builds(
    lambda first, key, last: bytes([first]) + bytes(6) + bytes([key]) + bytes(23) + bytes([last]),
    st.integers(0, 255),
    st.integers(0, 1),
    st.integers(0, 2),
)
PLACES = st.tuples(IDS, st.sampled_from([b"a" * 16, b"b" * 16]))
SEGMENTS = st.lists(st.lists(PLACES, min_size=1, max_size=60), max_size=3)


def write(repository, number, places):
    places = [(id_, Location(pack, 64, 100)) for id_, pack in places]
    path = repository.segment_path("00" * 12, number)
    write_segment(repository, path, content_of(places))


@settings(max_examples=60, deadline=None)
@given(SEGMENTS, st.lists(IDS, max_size=30), st.booleans())
def test_many_at_once_are_found_where_each_is(segments, ids, avoids):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as target:
        repository = make_repository(Path(target))
        for number, places in enumerate(segments):
            write(repository, number, places)
        ids += [id_ for places in segments for id_, _ in places[:9]]
        avoid = frozenset([b"a" * 16]) if avoids else frozenset()
        with closing(open_index(repository)) as index:
            expected = [n for n, id_ in enumerate(ids) if index.find(id_, avoid) is None]
            assert missing_ids(index, b"".join(ids), avoid).tolist() == expected


@pytest.fixture
def many(tmp_path):
    repository = make_repository(tmp_path)
    ids = [chunk_id(n.to_bytes(4, "big")) for n in range(5000)]
    write(repository, 0, [(id_, b"p" * 16) for id_ in ids])
    with closing(open_index(repository)) as index:
        yield index, ids


@pytest.mark.parametrize("stretch", [64, 1 << 17])
@pytest.mark.parametrize("step", [1, 700])
def test_numbers_are_those_of_the_records(many, monkeypatch, stretch, step):
    monkeypatch.setattr(lookup, "_STRETCH_RECORDS", stretch)
    monkeypatch.setattr(lookup, "_GAP_RECORDS", 32)
    index, ids = many
    (segment,) = index.segments
    order = ids_of(segment)
    wanted = [*ids[::step], bytes(32)]
    found = find_all(segment, sorted_ids := SortedIds(b"".join(wanted)))
    for place, number in zip(sorted_ids.places.tolist(), found.tolist(), strict=True):
        if wanted[place] == bytes(32):
            assert number == NOWHERE
        else:
            assert order[number] == wanted[place]


def test_only_what_may_hold_the_ids_is_read(many, monkeypatch):
    index, ids = many
    (segment,) = index.segments
    read = []
    whole = segment.read_records
    monkeypatch.setattr(
        segment, "read_records", lambda first, end: read.append(end - first) or whole(first, end)
    )
    monkeypatch.setattr(lookup, "_GAP_RECORDS", 0)
    assert missing_ids(index, b"".join(ids[:3])).tolist() == []
    assert sum(read) < 3 * 100


def test_a_number_of_a_pack_that_is_not_there_is_damage(many):
    index, ids = many
    (segment,) = index.segments
    segment.packs = ()
    with pytest.raises(CorruptError, match="names a pack that it has not"):
        missing_ids(index, ids[0])


def test_no_ids_and_no_index_are_no_trouble(many):
    index, ids = many
    assert missing_ids(index, b"").tolist() == []
    index.close()
    assert missing_ids(index, ids[0] + ids[1]).tolist() == [0, 1]


def test_a_writer_counts_on_what_it_has_published(tmp_path):
    with closing(ChunkWriters().open(make_repository(tmp_path), 1)) as writer:
        data = memoryview(b"x" * 100)
        writer.add([(chunk_id(data), data)], threads=1)
        writer.publish()
        assert writer.missing(bytes(32) + chunk_id(data)) == [0]

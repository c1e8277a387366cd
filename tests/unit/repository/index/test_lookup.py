"""Looking up many ids at once finds what looking up each of them finds."""

import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.small_repository import ids_of as ids_in
from virtbackup_async.errors import CorruptError
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository.data.chunk_writer import ChunkWriters
from virtbackup_async.repository.format.chunks import chunk_id
from virtbackup_async.repository.format.map_format import ENTRY
from virtbackup_async.repository.index import lookup
from virtbackup_async.repository.index.id_batches import IdBatch, ids_of
from virtbackup_async.repository.index.lookup import NOWHERE, SortedIds, are_missing, find_all
from virtbackup_async.repository.index.segment_writer import (
    content_of,
    nothing_follows,
    write_segment,
)
from virtbackup_async.repository.index.segments import Location, open_index
from virtbackup_async.repository.storage.layout import segment_file
from virtbackup_async.repository.storage.repository_file import make_repository

# Few of everything: ids that begin alike, or are there twice, are what may go wrong. Many have
# their first 8 bytes in common, all 24 behind them, or everything but one bit somewhere.
IDS = st.builds(
    lambda first, key, later, last: (
        bytes([first]) + bytes(6) + bytes([key, later]) + bytes(22) + bytes([last])
    ),
    st.sampled_from([0, 1, 128, 255]),
    st.integers(0, 2),
    st.sampled_from([0, 128]),
    st.integers(0, 2),
)
IDS |= st.sampled_from([b"\xff" * 32, b"\xff" * 31 + b"\xfe", b"\xff" * 8 + bytes(24)])
PLACES = st.tuples(IDS, st.sampled_from([b"a" * 16, b"b" * 16]))
SEGMENTS = st.lists(st.lists(PLACES, min_size=1, max_size=60), max_size=3)


def write(repository, number, places):
    places = [(id_, Location(pack, 64, 100)) for id_, pack in places]
    name = segment_file("00" * 12, number)
    write_segment(repository, name, content_of(places), nothing_follows)


def field_of(ids):
    """Give ids as a block of a map has them."""
    entries = np.zeros(len(ids), dtype=ENTRY)
    entries["leaf"] = np.frombuffer(b"".join(ids), dtype=ENTRY["leaf"])
    return entries["leaf"]


def missing(index, ids, avoid=frozenset()):
    """Give the places of those that are missing, of ids in blocks of three."""
    blocks = (field_of(ids[first : first + 3]) for first in range(0, len(ids), 3))
    return np.flatnonzero(are_missing(index, blocks, avoid)).tolist()


@settings(max_examples=60, deadline=None)
@given(SEGMENTS, st.lists(IDS, max_size=30), st.booleans(), st.sampled_from([1, 2, 8, 1 << 14]))
def test_many_at_once_are_found_where_each_is(segments, ids, avoids, at_once):
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm") as target,
        pytest.MonkeyPatch.context() as p,
    ):
        # So there are several batches, short stretches, and threads.
        p.setattr(lookup, "_MISSING_AT_ONCE", at_once * 3)
        p.setattr(lookup, "_MOST_OF_A_STRETCH", at_once)
        repository = make_repository(StorageLocation.of(Path(target)))
        for number, places in enumerate(segments):
            write(repository, number, places)
        ids += [id_ for places in segments for id_, _ in places[:9]]
        avoid = frozenset([b"a" * 16]) if avoids else frozenset()
        with closing(open_index(repository)) as index:
            expected = [n for n, id_ in enumerate(ids) if index.find(id_, avoid) is None]
            assert missing(index, ids, avoid) == expected


@pytest.mark.parametrize("byte", range(32))
def test_an_id_that_differs_in_one_bit_is_not_there(many, byte):
    index, ids = many
    near = [id_[:byte] + bytes([id_[byte] ^ 1]) + id_[byte + 1 :] for id_ in ids[:50]]
    assert missing(index, [*near, *ids[:50]]) == [*range(50)]


@pytest.fixture
def many(tmp_path):
    repository = make_repository(StorageLocation.of(tmp_path))
    ids = [chunk_id(n.to_bytes(4, "big")) for n in range(5000)]
    write(repository, 0, [(id_, b"p" * 16) for id_ in ids])
    with closing(open_index(repository)) as index:
        yield index, ids


@pytest.mark.parametrize("stretch", [64, 1 << 14])
@pytest.mark.parametrize("step", [1, 700])
def test_numbers_are_those_of_the_records(many, monkeypatch, stretch, step):
    monkeypatch.setattr(lookup, "_MOST_OF_A_STRETCH", stretch)
    monkeypatch.setattr(lookup, "_GAP_RECORDS", 32)
    index, ids = many
    (segment,) = index.segments
    order = ids_in(segment)
    wanted = [*ids[::step], bytes(32)]
    found = find_all(segment, sorted_ids := SortedIds(ids_of(b"".join(wanted))))
    for place, number in zip(sorted_ids.places.tolist(), found.tolist(), strict=True):
        if wanted[place] == bytes(32):
            assert number == NOWHERE
        else:
            assert order[number] == wanted[place]


def count_records_read(segment, monkeypatch):
    read = []
    whole = segment.read_records
    monkeypatch.setattr(
        segment, "read_records", lambda first, end: read.append(end - first) or whole(first, end)
    )
    return read


def test_only_what_may_hold_the_ids_is_read(many, monkeypatch):
    index, ids = many
    read = count_records_read(index.segments[0], monkeypatch)
    monkeypatch.setattr(lookup, "_GAP_RECORDS", 0)
    assert missing(index, ids[:3]) == []
    assert sum(read) < 3 * 100


@pytest.mark.parametrize("stretch", [64, 1 << 14])
def test_no_more_than_a_stretch_is_in_memory(many, monkeypatch, stretch):
    index, ids = many
    read = count_records_read(index.segments[0], monkeypatch)
    monkeypatch.setattr(lookup, "_MOST_OF_A_STRETCH", stretch)
    assert missing(index, ids * 2) == []
    assert max(read) <= stretch
    # A bucket that is cut is read twice.
    assert 5000 <= sum(read) <= 4 * 5000


def test_a_number_of_a_pack_that_is_not_there_is_damage(many, monkeypatch):
    index, ids = many
    (segment,) = index.segments
    segment.packs = ()
    for stretch in (1, 1 << 14):
        monkeypatch.setattr(lookup, "_MOST_OF_A_STRETCH", stretch)
        with pytest.raises(CorruptError, match="names a pack that it has not"):
            missing(index, ids[:2])


def test_no_ids_and_no_index_are_no_trouble(many):
    index, ids = many
    assert missing(index, []) == []
    index.close()
    assert missing(index, ids[:2]) == [0, 1]


def test_a_batch_takes_any_block():
    batch = IdBatch(2)
    ids = [n.to_bytes(32, "big") for n in range(70_000)]
    batch.add(field_of(ids[:1]))
    assert not batch.is_full
    batch.add(field_of(ids[1:]))
    assert batch.is_full
    assert batch.ids.tobytes() == b"".join(ids)
    batch.clear()
    batch.add(field_of(ids[7:9]))
    assert batch.ids.tobytes() == ids[7] + ids[8]


def test_a_writer_counts_on_what_it_has_published(tmp_path):
    with closing(ChunkWriters().open(make_repository(StorageLocation.of(tmp_path)), 1)) as writer:
        data = memoryview(b"x" * 100)
        writer.add({chunk_id(data): data})
        writer.publish()
        ids = [bytes(32), chunk_id(data)]
        assert writer.are_missing(iter([field_of(ids)])).tolist() == [True, False]

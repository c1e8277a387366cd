"""Merging segments of the index: nothing is lost, nothing is there twice, and there are few."""

import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository.index import merging
from virtbackup_async.repository.index.merging import merged, worth_merging
from virtbackup_async.repository.index.segment_writer import (
    content_of,
    nothing_follows,
    write_segment,
)
from virtbackup_async.repository.index.segments import Location, open_segment
from virtbackup_async.repository.storage.layout import segment_file
from virtbackup_async.repository.storage.repository_file import make_repository

PACKS = [bytes([number]) * 16 for number in range(3)]
# Ids that begin alike, and ids that are alike, are what may go wrong.
IDS = st.builds(
    lambda first, key, last: bytes([first]) + bytes(6) + bytes([key]) + bytes(23) + bytes([last]),
    st.integers(0, 255),
    st.integers(0, 1),
    st.integers(0, 1),
)
PLACES = st.builds(
    lambda id_, pack, offset: (id_, Location(pack, offset, 100)),
    IDS,
    st.sampled_from(PACKS),
    st.integers(64, 66),
)
SEGMENTS = st.lists(st.lists(PLACES, max_size=40), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(SEGMENTS, st.sets(st.sampled_from(PACKS)), st.sampled_from([1, 8, 1 << 18]))
@example([[(bytes(32), Location(PACKS[0], 64, 100))]] * 2, set(), 1)
def test_all_places_come_in_order_and_once(segments, gone, part):
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm") as target,
        pytest.MonkeyPatch.context() as patch,
        ExitStack() as opened,
    ):
        patch.setattr(merging, "_RECORDS_A_PART", part)
        repository = make_repository(StorageLocation.of(Path(target)))
        old = []
        for number, places in enumerate(segments):
            old.append(write(repository, number, content_of(places)))
            opened.callback(old[-1].close)
        new = write(repository, 99, merged(old, frozenset(gone)))
        opened.callback(new.close)
        wanted = {place for places in segments for place in places if place[1].pack not in gone}
        found = places_of(new)
        assert found == sorted(found, key=lambda place: place[0])
        assert Counter(found) == Counter(wanted)
        for id_, location in wanted:
            assert location in [place for _, place in new.find(id_)]


def write(repository, number, content):
    name = segment_file("00" * 12, number)
    write_segment(repository, name, content, nothing_follows)
    return open_segment(repository, name)


def places_of(segment):
    return [
        (
            record["id"].tobytes(),
            Location(segment.packs[record["pack"]], int(record["offset"]), int(record["length"])),
        )
        for record in segment.read_records(0, segment.shape.records)
    ]


def of_lengths(*lengths):
    return [SimpleNamespace(shape=SimpleNamespace(records=records)) for records in lengths]


@pytest.mark.parametrize(
    ("lengths", "chosen"),
    [
        ([], []),
        ([5], []),
        ([1000, 1], []),
        ([5, 5], [5, 5]),
        ([1000, 5, 5, 300], [5, 5]),
        ([1000, 400, 200], [200, 400, 1000]),
    ],
)
def test_what_is_merged_is_not_small_beside_the_rest(lengths, chosen):
    assert [segment.shape.records for segment in worth_merging(of_lengths(*lengths))] == chosen


def test_a_thousand_nights_leave_few_segments_and_little_is_written_again():
    segments, written, most = of_lengths(40_000_000), 0, 0
    for night in range(1000):
        segments += of_lengths(50_000 + night)
        chosen = worth_merging(segments)
        if len(segments) > 8 and chosen:
            total = sum(segment.shape.records for segment in chosen)
            segments = [kept for kept in segments if kept not in chosen] + of_lengths(total)
            written += total
        most = max(most, len(segments))
    assert most <= 16
    assert written < 20 * 50_000 * 1000

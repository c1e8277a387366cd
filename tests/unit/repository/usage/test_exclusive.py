"""What each backup needs alone is what would be free without it, counted chunk by chunk."""

import tempfile
from collections import defaultdict
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fakes.small_repository import content
from virtbackup_async.errors import CorruptError
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.packagers.repository.map_files import list_maps
from virtbackup_async.repository.data import maps
from virtbackup_async.repository.data.chunk_writer import ChunkWriters
from virtbackup_async.repository.data.maps import MapWriter, open_map
from virtbackup_async.repository.format.chunks import ALL_PAGES, CHUNK_BYTES, chunk_id
from virtbackup_async.repository.format.map_format import MapEntry, MapHead, entries_of
from virtbackup_async.repository.index.id_batches import ids_of
from virtbackup_async.repository.index.segments import open_index
from virtbackup_async.repository.storage.layout import list_segments
from virtbackup_async.repository.storage.repository_file import make_repository
from virtbackup_async.repository.usage import exclusive
from virtbackup_async.repository.usage.exclusive import Ownership, exclusive_usage

# Disks are lists of chunks, told from each other by a number; 0 is one of zeros.
DISKS = st.lists(st.integers(0, 9), min_size=1, max_size=8)
BACKUPS = st.lists(st.lists(DISKS, min_size=1, max_size=2), max_size=6)
CHUNKS = {number: memoryview(content([number])) for number in range(1, 10)}
IDS = {number: chunk_id(data) for number, data in CHUNKS.items()}


def write_map(storage, name, repository_id, disk):
    image = MapWriter(storage, name, MapHead(repository_id, len(disk) * CHUNK_BYTES))
    for place, number in enumerate(disk):
        if number:
            image.add(entries_of([MapEntry(place, ALL_PAGES, IDS[number])]))
    image.finish()
    image.publish()


def build(target, backups):
    """A repository with all chunks, and the backups' maps; their owners."""
    repository = make_repository(StorageLocation.of(target))
    with closing(ChunkWriters().open(repository, 1)) as writer:
        writer.add({IDS[number]: data for number, data in CHUNKS.items()})
        writer.publish()
    (target / "web").mkdir()
    owners = {}
    for number, disks in enumerate(backups):
        for dev, disk in zip(("vda", "vdb"), disks, strict=False):
            name = f"web/20260301-0215{number:02}_3_web_{dev}.raw.map"
            write_map(repository.storage, name, repository.id, disk)
            owners[name] = number
    return repository, owners


def lengths(repository):
    with closing(open_index(repository)) as index:
        (segment,) = index.segments
        records = segment.read_records(0, segment.shape.records)
        return {record["id"].tobytes(): int(record["length"]) for record in records}


def expected(backups, known, length_of):
    needed_by = defaultdict(set)
    for number, disks in enumerate(backups):
        for disk in disks:
            for chunk in filter(None, disk):
                needed_by[chunk].add(number if number in known else None)
    own = [0] * (1 + max(known, default=-1))
    shared = 0
    for chunk, users in needed_by.items():
        if len(users) == 1 and None not in users:
            own[users.pop()] += length_of[IDS[chunk]]
        else:
            shared += length_of[IDS[chunk]]
    return tuple(own), shared, sum(length_of.values()) - sum(own) - shared


@settings(max_examples=20, deadline=None)
@given(BACKUPS, st.sets(st.integers(0, 5)), st.integers(1, 20))
@example([[[1], [1]]], set(), 20)  # one backup has it on both of its disks
@example([[[1]], [[2]], [[1]]], set(), 20)  # it comes back
@example([[[1, 2]], [[1, 3]], [[1, 3]], [[4, 3]]], set(), 1)
def test_shares_are_those_that_counting_gives(backups, unknown, ids_at_once):
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm") as directory,
        pytest.MonkeyPatch.context() as p,
    ):
        p.setattr(exclusive, "IDS_AT_ONCE", ids_at_once)
        p.setattr(maps, "_BLOCK_ENTRIES", 3)
        target = Path(directory)
        repository, owners = build(target, backups)
        owners = {path: owner for path, owner in owners.items() if owner not in unknown}
        told = exclusive_usage(
            repository, partial(list_maps, repository.storage), owners, lambda: None
        )
        own, shared, unneeded = expected(backups, set(owners.values()), lengths(repository))
    assert (told.own_bytes, told.shared_bytes, told.unneeded_bytes) == (own, shared, unneeded)


def test_with_very_many_backups_the_numbers_are_longer(tmp_path):
    repository, _ = build(tmp_path, [])
    with closing(open_index(repository)) as index:
        ownership = Ownership(index, 70_000)
        ownership.enter(ids_of(IDS[1] + IDS[2]), np.array([66_000, 70_001], dtype="u4"))
        told = ownership.shares(lambda: None)
    assert told.own_bytes[65_999] == lengths(repository)[IDS[1]]
    assert told.shared_bytes == lengths(repository)[IDS[2]]


def test_a_map_of_another_repository_is_an_error(tmp_path):
    repository, owners = build(tmp_path, [[[1, 2]]])
    (name,) = owners
    (tmp_path / "other").mkdir()
    (tmp_path / name).unlink()
    write_map(
        repository.storage, name, make_repository(StorageLocation.of(tmp_path / "other")).id, [1]
    )
    with pytest.raises(CorruptError, match="belongs to another repository"):
        exclusive_usage(repository, partial(list_maps, repository.storage), owners, lambda: None)


def test_a_damaged_map_is_an_error(tmp_path):
    repository, owners = build(tmp_path, [[[1, 2]]])
    (name,) = owners
    path = tmp_path / name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptError, match="its checksum differs"):
        exclusive_usage(repository, partial(list_maps, repository.storage), owners, lambda: None)


def shares_of(repository, owners, on_step=lambda: None):
    return exclusive_usage(repository, partial(list_maps, repository.storage), owners, on_step)


def test_of_a_chunk_that_is_stored_twice_the_second_copy_is_unneeded(tmp_path):
    repository, owners = build(tmp_path, [[[1, 2]]])
    (segment,) = list_segments(repository.storage)
    length_of = lengths(repository)
    aside = (tmp_path / segment).rename(tmp_path / "aside")
    with closing(ChunkWriters().open(repository, 1)) as writer:
        writer.add({IDS[1]: CHUNKS[1]})
        writer.publish()
    aside.rename(tmp_path / segment)
    told = shares_of(repository, owners)
    assert told.own_bytes == (length_of[IDS[1]] + length_of[IDS[2]],)
    assert told.shared_bytes == 0
    assert told.unneeded_bytes == sum(length_of[IDS[n]] for n in (1, *range(3, 10)))


def test_a_chunk_that_stays_is_looked_up_twice(tmp_path, monkeypatch):
    repository, owners = build(tmp_path, [[[1, 2, 3]]] * 6)
    asked, real = [], Ownership.enter

    def enter(self, ids, whose):
        asked.append(len(ids))
        real(self, ids, whose)

    monkeypatch.setattr(Ownership, "enter", enter)
    told = shares_of(repository, owners)
    assert sum(asked) == 6
    assert told.own_bytes == (0,) * 6


def test_few_maps_are_open_at_once(tmp_path, monkeypatch):
    repository, owners = build(tmp_path, [[[1]], [[2]], [[3]], [[4]], [[5]]])
    opened, most = set(), 0

    def open_counted(storage, name):
        nonlocal most
        chunk_map = open_map(storage, name)
        opened.add(name)
        most = max(most, len(opened))
        close = chunk_map.close
        monkeypatch.setattr(chunk_map, "close", lambda: (opened.discard(name), close()))
        return chunk_map

    monkeypatch.setattr(exclusive, "open_map", open_counted)
    shares_of(repository, owners)
    assert (most, opened) == (4, set())


def test_it_can_be_stopped_at_every_step(tmp_path):
    repository, owners = build(tmp_path, [[[1], [2]]])
    steps = []
    shares_of(repository, owners, lambda: steps.append(1))
    assert len(steps) == 3  # two maps, and the index
    for number in range(3):
        left = iter(range(number))

        def stop(left=left):
            if next(left, None) is None:
                raise InterruptedError

        with pytest.raises(InterruptedError):
            shares_of(repository, owners, stop)

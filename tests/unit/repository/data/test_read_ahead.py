"""read_ahead.py: each byte is read once, by few requests, and never trusted to be there."""

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import cache

import numpy as np
import pytest

from fakes.memory_storage import MemoryStorage
from virtbackup_async.errors import CorruptError, StorageError
from virtbackup_async.images.buffers import Room
from virtbackup_async.repository import CHUNK_BYTES, ChunkReader, ChunkWriters
from virtbackup_async.repository.data import read_ahead
from virtbackup_async.repository.format.chunks import ID_BYTES, chunk_id
from virtbackup_async.repository.storage.repository_file import make_in

MIB = 1 << 20
MUCH = Room(64 * MIB)


class Watched(MemoryStorage):
    """A storage far away, which notes the reads of packs."""

    def __init__(self, reads_at_once=4):
        super().__init__(reads_at_once=reads_at_once)
        self.runs = []
        self.alone = []
        self.error = None

    def open(self, name):
        file = super().open(name)
        return _WatchedFile(self, name, file) if name.endswith(".pack") else file


class _WatchedFile:
    def __init__(self, storage, name, file):
        self.where, self.size_bytes, self.close = file.where, file.size_bytes, file.close
        self.read_up_to = file.read_up_to
        self._storage = storage
        self._name = name
        self._file = file

    def read(self, length_bytes, offset):
        if offset:
            self._storage.alone.append((self._name, offset))
        return self._file.read(length_bytes, offset)

    def read_once(self, length_bytes, offset):
        self._storage.runs.append((self._name, offset, length_bytes))
        if self._storage.error is not None:
            raise self._storage.error
        return self._file.read(length_bytes, offset)


@cache
def chunk(number):
    """A chunk that takes as much space in a pack as in an image."""
    return random.Random(number).randbytes(CHUNK_BYTES)


def leaf(number):
    return chunk_id(chunk(number))


def leaves(numbers):
    return np.frombuffer(b"".join(map(leaf, numbers)), dtype=f"V{ID_BYTES}")


def store(storage, *packs):
    """Store chunks, in so many packs."""
    repository = make_in(storage)
    for numbers in packs:
        with closing(ChunkWriters().open(repository, 1)) as writer:
            for number in numbers:
                writer.add({leaf(number): memoryview(chunk(number))})
            writer.publish()
    return repository


def read(ahead, numbers):
    for number in numbers:
        assert ahead.read(leaf(number)) == chunk(number), f"chunk {number} differs"


@pytest.fixture
def storage():
    return Watched()


@pytest.fixture
def reader_of():
    opened = []

    def open_(repository):
        opened.append(ChunkReader(repository))
        return opened[-1]

    yield open_
    for reader in opened:
        reader.close()


def test_chunks_in_a_row_are_read_by_few_requests(storage, reader_of):
    chunks = reader_of(store(storage, range(40)))
    with closing(chunks.read_ahead(MUCH, [leaves(range(40))])) as ahead:
        read(ahead, range(40))
    assert len(storage.runs) == 3
    assert sum(length for _, _, length in storage.runs) == 40 * (64 + CHUNK_BYTES)
    assert storage.alone == []


def test_chunks_come_in_the_order_of_the_packs_not_of_the_image(storage, reader_of):
    chunks = reader_of(store(storage, range(12), range(12, 24)))
    order = [n for pair in zip(range(12), range(12, 24), strict=True) for n in pair]
    with closing(chunks.read_ahead(MUCH, [leaves(order)])) as ahead:
        read(ahead, order)
    assert len(storage.runs) == 2
    assert storage.alone == []


def test_a_chunk_that_comes_again_is_read_once(storage, reader_of):
    chunks = reader_of(store(storage, range(4)))
    order = [0, 1, 0, 2, 0, 3, 0]
    with closing(chunks.read_ahead(MUCH, [leaves(order)])) as ahead:
        read(ahead, order)
    assert len(storage.runs) == 1
    assert storage.alone == []


def test_where_reads_wait_for_nobody_each_chunk_is_read_when_it_is_asked_for(reader_of):
    storage = Watched(reads_at_once=1)
    chunks = reader_of(store(storage, range(4)))
    with closing(chunks.read_ahead(MUCH, [leaves(range(4))])) as ahead:
        read(ahead, range(4))
    assert storage.runs == []
    assert len(storage.alone) == 4


@pytest.mark.parametrize("sharers", [1, 3])
def test_no_more_is_held_than_a_share_of_the_room(storage, reader_of, monkeypatch, sharers):
    monkeypatch.setattr(read_ahead, "LEAST_BYTES", MIB)
    monkeypatch.setattr(read_ahead, "RUN_BYTES", MIB)
    room = Room(12 * MIB)
    for _ in range(sharers - 1):
        room.enter()
    chunks = reader_of(store(storage, range(200)))
    with closing(chunks.read_ahead(room, [leaves(range(200))])) as ahead:
        for number in range(200):
            read(ahead, [number])
            held_bytes = sum(length for _, _, length in storage.runs) - number * CHUNK_BYTES
            assert held_bytes <= 12 * MIB // sharers + 2 * MIB
    assert storage.alone == []


def test_an_image_that_is_closed_leaves_its_share_to_others(storage, reader_of):
    room = Room(12 * MIB)
    chunks = reader_of(store(storage, range(4)))
    first, second = (chunks.read_ahead(room, [leaves(range(4))]) for _ in range(2))
    assert room.share_bytes == 6 * MIB
    for _ in range(2):
        first.close()
    assert room.share_bytes == 12 * MIB
    read(first, range(4))
    assert len(storage.alone) == 4, "a closed one reads on when it is asked"
    second.close()


def test_threads_share_what_was_read(storage, reader_of):
    chunks = reader_of(store(storage, range(100)))
    order = [*range(100), *range(50)]
    with (
        closing(chunks.read_ahead(MUCH, [leaves(order)])) as ahead,
        ThreadPoolExecutor(8) as threads,
    ):
        found = list(threads.map(lambda number: ahead.read(leaf(number)), order))
    assert found == [chunk(number) for number in order]
    assert storage.alone == []


def test_what_comes_is_told_later_too(storage, reader_of):
    chunks = reader_of(store(storage, range(30)))
    with closing(chunks.read_ahead(MUCH)) as ahead:
        for first in (0, 10, 20):
            ahead.add(leaves(range(first, first + 10)))
            read(ahead, range(first, first + 10))
    assert storage.alone == []


@pytest.mark.parametrize("every", [2, 3])
def test_chunks_that_nobody_takes_do_not_stop_it(storage, reader_of, monkeypatch, every):
    monkeypatch.setattr(read_ahead, "LEAST_BYTES", MIB)
    monkeypatch.setattr(read_ahead, "RUN_BYTES", MIB)
    chunks = reader_of(store(storage, range(120)))
    with closing(chunks.read_ahead(Room(8 * MIB), [leaves(range(120))])) as ahead:
        read(ahead, range(0, 120, every))
    assert storage.alone == []


def test_it_goes_on_where_its_user_is_after_a_jump(storage, reader_of):
    chunks = reader_of(store(storage, range(150)))
    with closing(chunks.read_ahead(Room(8 * MIB), [leaves(range(150))])) as ahead:
        read(ahead, [*range(3), *range(70, 150)])
        ahead.add(leaves(range(3, 70)))
        read(ahead, range(3, 70))
    assert len(storage.alone) == 15


def test_chunks_that_were_not_told_are_read_alone(storage, reader_of):
    chunks = reader_of(store(storage, range(8)))
    with closing(chunks.read_ahead(MUCH, [leaves(range(4))])) as ahead:
        read(ahead, [7, 0, 6, 1, 5, 2, 3])
    assert len(storage.alone) == 3


def test_a_damaged_chunk_is_read_from_another_pack(storage, reader_of):
    repository = store(storage, range(4))
    first = {name for name in storage.files if name.endswith(".pack")}
    store_copy(storage, range(4))
    chunks = reader_of(repository)
    (used,) = {chunks.find(leaf(n)).pack for n in range(4)}
    assert first
    storage.files[pack_of(used)].data[64 + 64 + 100] ^= 1
    with closing(chunks.read_ahead(MUCH, [leaves(range(4))])) as ahead:
        read(ahead, range(4))
        assert ahead.read_sealed(leaf(1))


def test_a_chunk_without_a_good_copy_is_an_error_and_the_others_come(storage, reader_of):
    repository = store(storage, range(4))
    (pack,) = (name for name in storage.files if name.endswith(".pack"))
    storage.files[pack].data[64 + 64 + 100] ^= 1
    chunks = reader_of(repository)
    order = [0, 1, 9, 2, 3]
    with closing(chunks.read_ahead(MUCH, [leaves(order)])) as ahead:
        with pytest.raises(CorruptError, match="is damaged"):
            ahead.read(leaf(0))
        with pytest.raises(CorruptError, match="is missing"):
            ahead.read(leaf(9))
        read(ahead, [1, 2, 3])


def test_a_pack_that_ends_too_soon_costs_only_what_it_lost(storage, reader_of):
    repository = store(storage, range(4))
    (pack,) = (name for name in storage.files if name.endswith(".pack"))
    del storage.files[pack].data[-100:]
    with closing(reader_of(repository).read_ahead(MUCH, [leaves(range(4))])) as ahead:
        read(ahead, range(3))
        with pytest.raises(CorruptError, match="cut off"):
            ahead.read(leaf(3))


def test_chunks_are_found_where_a_prune_has_moved_them(storage, reader_of):
    repository = store(storage, range(4))
    (old,) = (name for name in storage.files if name.endswith(".pack"))
    chunks = reader_of(repository)
    index = next(name for name in storage.files if name.endswith(".index"))
    with closing(chunks.read_ahead(MUCH, [leaves(range(4))])) as ahead:
        store_copy(storage, range(4))
        del storage.files[old], storage.files[index]
        read(ahead, range(4))


def test_a_storage_that_cannot_be_reached_is_an_error_at_once(storage, reader_of):
    chunks = reader_of(store(storage, range(4)))
    storage.error = OSError(116, "Stale file handle")
    with closing(chunks.read_ahead(MUCH, [leaves(range(4))])) as ahead:
        for number in range(4):
            with pytest.raises(StorageError, match="Stale"):
                ahead.read(leaf(number))
    assert storage.alone == []


def test_a_map_that_cannot_be_read_on_leaves_it_to_its_reader(storage, reader_of):
    def coming():
        yield leaves(range(2))
        raise CorruptError("its checksum differs")

    chunks = reader_of(store(storage, range(4)))
    with closing(chunks.read_ahead(MUCH, coming())) as ahead:
        read(ahead, range(4))
    assert len(storage.alone) == 2


def store_copy(storage, numbers):
    """Store chunks once more, as a repack does, in a pack and a segment of their own."""
    other = Watched()
    repository = make_in(storage)
    for name in (".virtbackup-repository/repository", ".virtbackup-repository"):
        if name in storage.files:
            other.files[name] = storage.files[name]
    other.directories |= storage.directories
    assert make_in(other).id == repository.id
    store(other, numbers)
    for name, file in other.files.items():
        storage.files.setdefault(name, file)
    storage.directories |= other.directories


def pack_of(pack):
    return f".virtbackup-repository/packs/{pack.hex()[:2]}/{pack.hex()}.pack"

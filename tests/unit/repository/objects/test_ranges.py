"""Ranges of a pack: each byte that is wanted comes, and few come twice."""

import random

import pytest

from object_stores import memory_object_storage
from virtbackup_async.errors import CorruptError, StorageError
from virtbackup_async.repository.storage.objects import ranges

PACK = ".virtbackup-repository/packs/aa/x.pack"
BLOCK = 64 * 1024
CONTENT = random.Random(1).randbytes(20 * BLOCK + 123)


@pytest.fixture
def storage(monkeypatch):
    monkeypatch.setattr(ranges, "BLOCK_BYTES", BLOCK)
    monkeypatch.setattr(ranges, "FIRST_BYTES", 4096)
    monkeypatch.setattr("virtbackup_async.repository.storage.objects.storage.FIRST_BYTES", 4096)
    storage = memory_object_storage()
    storage.put_new(PACK, CONTENT)
    return storage


def gets(storage):
    count = storage.traffic.by_kind()["get", "packs"]
    return count.requests, count.received_bytes


def test_a_pack_that_is_read_from_end_to_end_is_fetched_once(storage):
    file = storage.open(PACK)
    for offset in range(0, len(CONTENT), 1000):
        assert file.read_up_to(1000, offset) == CONTENT[offset : offset + 1000]
    requests, received = gets(storage)
    assert requests <= 20 + 4
    assert received <= len(CONTENT) + 3 * BLOCK


def test_reads_far_from_each_other_fetch_little_more(storage):
    file = storage.open(PACK)
    for offset in (0, 10 * BLOCK, 3 * BLOCK, 18 * BLOCK, 7 * BLOCK):
        assert file.read(1000, offset) == CONTENT[offset : offset + 1000]
    assert gets(storage)[1] <= 5 * 4096


@pytest.mark.parametrize("seed", range(5))
def test_any_range_is_what_was_stored(storage, seed):
    numbers = random.Random(seed)
    file = storage.open(PACK)
    at = 0
    for _ in range(200):
        at = numbers.choice((at, at, numbers.randrange(len(CONTENT) + 100)))
        length = numbers.choice((1, 100, 5000, BLOCK, 3 * BLOCK))
        assert file.read_up_to(length, at) == CONTENT[at : at + length]
        at += length


def test_what_ends_before_is_cut_off(storage):
    file = storage.open(PACK)
    with pytest.raises(CorruptError, match="cut off"):
        file.read(200, len(CONTENT) - 100)


@pytest.mark.parametrize("is_in_a_row", [False, True])
def test_a_pack_that_went_or_was_replaced_is_told_apart(storage, is_in_a_row):
    for change, error in (
        (lambda: storage.remove(PACK), FileNotFoundError),
        (lambda: storage.replace(PACK, bytes(len(CONTENT))), StorageError),
    ):
        storage.replace(PACK, CONTENT)
        file = storage.open(PACK)
        if is_in_a_row:
            for offset in range(0, 2 * BLOCK, 4096):
                file.read(4096, offset)
        change()
        with pytest.raises(error):
            file.read(100, 15 * BLOCK)
        with pytest.raises(error):
            file.read(100, 15 * BLOCK)


def test_few_blocks_are_in_memory(storage, monkeypatch):
    monkeypatch.setattr(ranges, "MOST_BLOCKS", 3)
    file = storage.open(PACK)
    for offset in range(0, 20 * BLOCK, 4096):
        file.read(4096, offset)
    assert len(storage._blocks._blocks) <= 3

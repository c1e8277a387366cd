"""Backups made at once by one process: equal chunks are stored once, failures stay apart."""

import random
from collections import Counter
from contextlib import closing
from threading import Barrier, Thread

import pytest
from anyio import create_task_group
from msgspec.structs import replace

from fakes.memory_storage import MemoryStorage
from fakes.repository_files import files_of
from fakes.small_repository import PACKAGER, SmallRepository, content, ids_of
from store_servers import served
from virtbackup_async.errors import StorageError
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.sources.file import open_image_stream
from virtbackup_async.packagers.codecs.cpu_shares import CpuShares
from virtbackup_async.packagers.registry import open_writer
from virtbackup_async.repository.data import chunk_writer
from virtbackup_async.repository.data.chunk_writer import ChunkWriters
from virtbackup_async.repository.format.chunks import chunk_id
from virtbackup_async.repository.index.segments import open_index
from virtbackup_async.repository.prune.prune import prune_repository
from virtbackup_async.repository.storage.layout import list_packs
from virtbackup_async.repository.storage.leases import living_holders
from virtbackup_async.repository.storage.local_files import LocalGrowingFile
from virtbackup_async.repository.storage.repository_file import make_in, make_repository
from virtbackup_async.repository.storage.served.append_only import AppendOnlyStorage


@pytest.fixture
def place(tmp_path):
    return SmallRepository(tmp_path / "target")


@pytest.fixture
def repository(place):
    return make_repository(place.location)


@pytest.fixture
def writers(repository):
    """Two writers of one process; what a test leaves open is closed."""
    process = ChunkWriters()
    made = [process.open(repository, 1), process.open(repository, 1)]
    left = list(made)

    def close(writer):
        left.remove(writer)
        writer.close()

    yield *made, close
    while left:
        left.pop().close()
    assert not living_holders(repository.storage)


def add(writer, *numbers):
    """Store chunks, and return by how many bytes the packs grew."""
    images = [memoryview(content([number])) for number in numbers]
    return writer.add({chunk_id(image): image for image in images})


async def test_two_equal_disks_that_are_backed_up_at_once_store_each_chunk_once(place, tmp_path):
    cpu, buffers = CpuShares(2), BufferPool()
    image = tmp_path / "image"
    image.write_bytes(content(range(1, 60)))

    async def back_up(name):
        async with (
            open_writer(PACKAGER, place.directory, name, cpu) as package,
            open_image_stream(image, buffers) as stream,
        ):
            await package.add_disk(f"{name}_vda.raw", stream, lambda _: None)
            await package.finish()

    async with create_task_group() as tasks:
        tasks.start_soon(back_up, "a")
        tasks.start_soon(back_up, "b")
    assert len(place.indexed()) == len(set(place.indexed())) == 59
    assert await place.restored("a") == await place.restored("b") == image.read_bytes()


def test_of_two_that_store_the_same_at_the_same_moment_one_waits(place, writers):
    *both, _ = writers
    start = Barrier(2)

    def store(writer, seed):
        start.wait()
        numbers = random.Random(seed)
        for _ in range(40):
            add(writer, *numbers.sample(range(1, 30), 6))
        writer.publish()

    threads = [Thread(target=store, args=(writer, seed)) for seed, writer in enumerate(both)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(place.indexed()) == len(set(place.indexed())) == 29


def test_what_a_failed_backup_stored_stays_for_whoever_counts_on_it(place, writers):
    failing, good, close = writers
    assert add(failing, 1, 2) > 0
    assert add(good, 2) == 0
    failing.discard()
    close(failing)
    good.publish()
    close(good)
    assert len(place.indexed()) == 2


def test_what_nobody_counts_on_goes_at_once(place, writers):
    failing, good, _ = writers
    add(good, 1)
    add(failing, 2)
    failing.discard()
    assert len(place.packs()) == 1
    assert add(good, 2) > 0, "it is not there any more"
    good.publish()
    assert len(place.indexed()) == 2


def test_when_all_fail_nothing_is_left(place, writers):
    first, second, close = writers
    add(first, 1)
    add(second, 1, 2)
    close(first)
    assert place.packs()
    close(second)
    assert place.packs() == []
    assert place.indexed() == []


def test_what_one_could_not_store_the_other_stores(place, writers):
    failing, good, _ = writers
    failing._level = 99
    with pytest.raises(ValueError, match="level"):
        add(failing, 1)
    assert add(good, 1) > 0


def test_what_was_given_up_before_anybody_waited_is_stored_all_the_same(
    place, writers, monkeypatch
):
    failing, good, _ = writers
    chunks = {chunk_id(content([1])): memoryview(content([1]))}
    given_up, packed = failing.pack(chunks), good.pack(chunks)
    assert (packed.blobs, packed.others) == ({}, list(chunks))
    with monkeypatch.context() as patched:
        patched.setattr(LocalGrowingFile, "append", full)
        with pytest.raises(StorageError):
            failing.store(given_up)
    assert good.store(packed) == 0
    assert good.wait_for_others(packed.others, chunks) > 0
    good.publish()
    assert place.indexed() == list(chunks)


def full(file, data):
    raise StorageError("target is full")


def test_after_a_failed_write_nothing_is_called_durable(place, writers, monkeypatch):
    failing, good, _ = writers
    add(failing, 1)
    add(good, 1)

    with monkeypatch.context() as patched:
        patched.setattr(LocalGrowingFile, "append", full)
        with pytest.raises(StorageError):
            add(failing, 2)
    for writer in (failing, good):
        with pytest.raises(StorageError, match="full"):
            writer.publish()
    assert place.indexed() == []


def test_who_comes_after_a_broken_lease_begins_anew(repository):
    process = ChunkWriters()
    first = process.open(repository, 1)
    (lease,) = files_of(repository).leases.iterdir()
    lease.unlink()
    second = process.open(repository, 1)
    second.check()
    second.close()
    first.close()
    assert not living_holders(repository.storage)


@pytest.mark.parametrize("is_served", [False, True])
def test_a_writer_that_may_only_add_files_stores_any_number_of_chunks(monkeypatch, is_served):
    """It cannot replace its segments by one, so it leaves that to the keeper's prune."""
    monkeypatch.setattr(chunk_writer, "CHUNKS_A_SEGMENT", 1)
    monkeypatch.setattr(chunk_writer, "MERGED_AT_ONCE", 2)
    inner = MemoryStorage()
    repository = make_in(inner)
    storage = AppendOnlyStorage(inner)
    if is_served:
        storage = served(storage, append_only=True)
    writer = ChunkWriters().open(replace(repository, storage=storage), 1)
    try:
        for number in range(1, 10):
            add(writer, number)
        writer.publish()
        writer.check()
    finally:
        writer.close()
    with closing(open_index(repository)) as index:
        found = Counter(id_ for segment in index.segments for id_ in ids_of(segment))
    assert found.keys() == {chunk_id(content([number])) for number in range(1, 10)}
    # It tries once, and no chunk is in the index a third time.
    assert max(found.values()) <= 2
    assert len(found) < sum(found.values()) <= len(found) + 2
    prune_repository(repository, list, lambda: None)
    assert not list(list_packs(inner))

"""store_stream.py: in order, whoever is quickest; nobody waits for ever; nothing is left."""

import random
from itertools import count
from threading import Event

import pytest
from anyio import CancelScope, create_task_group, fail_after, to_thread

from fakes.small_repository import PACKAGER, SmallRepository, content
from virtbackup_async.errors import StorageError
from virtbackup_async.images.buffers import BUFFER_BYTES, BufferPool
from virtbackup_async.images.sources.file import open_image_stream
from virtbackup_async.packagers.codecs.cpu_shares import CpuShares
from virtbackup_async.packagers.registry import open_writer
from virtbackup_async.packagers.repository.store_stream import (
    MappedImage,
    batch_places,
    store_stream,
)
from virtbackup_async.repository.check.scan_pack import chunks_of_pack
from virtbackup_async.repository.data.chunk_writer import ChunkWriters
from virtbackup_async.repository.data.maps import MapWriter
from virtbackup_async.repository.format.chunks import CHUNK_BYTES, chunk_id
from virtbackup_async.repository.format.map_format import MapHead
from virtbackup_async.repository.format.pack_format import HEAD_BYTES
from virtbackup_async.repository.storage.layout import list_packs
from virtbackup_async.repository.storage.local_files import LocalGrowingFile
from virtbackup_async.repository.storage.repository_file import make_repository

CHUNKS_A_BUFFER = BUFFER_BYTES // CHUNK_BYTES


class Site:
    """A repository, and what all backups of a process share."""

    def __init__(self, directory, *, threads=2, buffers=16):
        self.place = SmallRepository(directory / "target")
        self.cpu = CpuShares(threads)
        self.buffers = BufferPool(buffers * BUFFER_BYTES)
        self._directory = directory
        self._before = self._shared()

    async def back_up(self, name, data, on_progress=lambda _: None):
        image = self._directory / f"{name}.image"
        image.write_bytes(data)
        async with (
            open_writer(PACKAGER, self.place.directory, name, self.cpu) as package,
            open_image_stream(image, self.buffers) as stream,
        ):
            await package.add_disk(f"{name}_vda.raw", stream, on_progress)
            await package.finish()

    async def check_nothing_is_left(self):
        """All is given back, no pack is there, and what was claimed can be stored by others."""
        assert self._shared() == self._before
        assert self.place.packs() == []
        await self.back_up("good", DATA)
        assert await self.place.restored("good") == DATA

    def _shared(self):
        return self.cpu.shared(batch_places).value, self.cpu.is_at_rest, self.buffers.available


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


DATA = content(range(1, 6 * CHUNKS_A_BUFFER + 1))


def let_every_other_one_overtake(writer, batches):
    """Of two batches that are packed at once, the first one begins when the second is packed."""
    pack, numbers = writer.pack, count()
    is_packed = [Event() for _ in range(batches)]

    def pack_backwards(chunks):
        number = next(numbers)
        if number < batches and number % 2 == 0:
            assert is_packed[number + 1].wait(20)
        packed = pack(chunks)
        if number < batches:
            is_packed[number].set()
        return packed

    writer.pack = pack_backwards


async def take_in_backwards(site, tmp_path, data):
    """Back ``data`` up as "a"; return the ids in its pack, in their order."""
    (tmp_path / "image").write_bytes(data)
    repository = make_repository(site.place.location)
    writer = ChunkWriters().open(repository, 1)
    let_every_other_one_overtake(writer, len(data) // BUFFER_BYTES)
    image = MapWriter(
        repository.storage, site.place.map_name("a"), MapHead(repository.id, len(data))
    )
    try:
        async with open_image_stream(tmp_path / "image", site.buffers) as stream:
            mapped = MappedImage(image, None)
            stored = await store_stream(stream, writer, mapped, site.cpu, lambda _: None)
        await to_thread.run_sync(image.finish)
        await to_thread.run_sync(writer.publish)
        await to_thread.run_sync(image.publish)
    finally:
        await to_thread.run_sync(writer.close)
    (pack,) = site.place.packs()
    (name,) = list_packs(repository.storage)
    assert stored.compressed_bytes == pack.stat().st_size - HEAD_BYTES
    return [id_ for id_, _ in chunks_of_pack(repository, name)]


async def test_packs_and_map_are_in_the_order_of_the_image(tmp_path, site):
    pieces = (DATA[at : at + CHUNK_BYTES] for at in range(0, len(DATA), CHUNK_BYTES))
    assert await take_in_backwards(site, tmp_path, DATA) == [chunk_id(piece) for piece in pieces]
    assert await site.place.restored("a") == DATA


async def test_what_a_later_batch_has_claimed_does_not_keep_that_one_waiting(tmp_path, site):
    data = content([*range(1, CHUNKS_A_BUFFER + 1), *range(CHUNKS_A_BUFFER, 0, -1)])
    with fail_after(30):
        assert len(await take_in_backwards(site, tmp_path, data)) == CHUNKS_A_BUFFER
    assert await site.place.restored("a") == data


@pytest.mark.parametrize("seed", range(6))
async def test_disks_with_the_same_chunks_in_another_order_store_each_once(tmp_path, seed):
    """Each has claimed what the other one comes to later, on few threads and few buffers."""
    drawn = random.Random(seed)
    site = Site(tmp_path, threads=drawn.randint(1, 3), buffers=drawn.choice([1, 2, 3, 16]))
    chunks = list(range(1, 3 * CHUNKS_A_BUFFER))
    images = {}
    for name in "abc":
        drawn.shuffle(chunks)
        images[name] = content([*chunks, *drawn.choices(chunks, k=CHUNKS_A_BUFFER)])
    with fail_after(60):
        async with create_task_group() as tasks:
            for name, data in images.items():
                tasks.start_soon(site.back_up, name, data)
    assert len(site.place.indexed()) == len(set(site.place.indexed())) == len(chunks)
    for name, data in images.items():
        assert await site.place.restored(name) == data


@pytest.mark.parametrize("good_writes", [0, 1, 20, 70])
async def test_a_full_target_ends_the_backup_and_leaves_nothing(site, monkeypatch, good_writes):
    append, writes = LocalGrowingFile.append, count()

    def append_until_full(file, data):
        if next(writes) >= good_writes:
            raise StorageError("target is full")
        append(file, data)

    with monkeypatch.context() as patched:
        patched.setattr(LocalGrowingFile, "append", append_until_full)
        with pytest.raises(StorageError, match="full"):
            await site.back_up("failed", DATA)
    await site.check_nothing_is_left()


@pytest.mark.parametrize("steps", [1, 2, 5])
async def test_a_cancelled_backup_leaves_nothing(site, steps):
    done = count(1)
    with CancelScope() as scope:
        await site.back_up("cancelled", DATA, lambda _: next(done) < steps or scope.cancel())
    assert scope.cancelled_caught
    await site.check_nothing_is_left()


async def test_of_two_equal_disks_the_one_that_goes_on_stores_all(site):
    """What the other one had claimed, or stored, when it was cancelled counts for nothing."""
    done = count(1)

    async def back_up_and_give_up():
        with CancelScope() as scope:
            await site.back_up("cancelled", DATA, lambda _: next(done) < 3 or scope.cancel())

    async with create_task_group() as tasks:
        tasks.start_soon(back_up_and_give_up)
        tasks.start_soon(site.back_up, "good", DATA)
    assert await site.place.restored("good") == DATA

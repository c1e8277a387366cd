"""transfer.py: only missing chunks are read, once each, and sealed as the other repository does."""

from contextlib import asynccontextmanager
from random import Random

import pytest
from anyio import create_task_group

from fakes.small_repository import content
from object_stores import memory_object_storage
from virtbackup_async.errors import CorruptError
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.sources.file import open_image_stream
from virtbackup_async.model.backup import Packager
from virtbackup_async.model.packager import Location
from virtbackup_async.model.storage_location import LOCAL, StorageLocation
from virtbackup_async.packagers.codecs.cpu_shares import CpuShares
from virtbackup_async.packagers.repository.reader import open_reader
from virtbackup_async.packagers.repository.writer import open_writer
from virtbackup_async.repository import CHUNK_BYTES, ChunkReader, find_repository, make_repository
from virtbackup_async.repository.storage.repository_file import STORAGES

PACKAGER = Packager("repository", {"compression_lvl": 1})
CHUNKS = [1, 2, 0, 3, 2, *range(10, 60)]
DATA_CHUNKS = len(CHUNKS) - 1


class Place:
    """A target with a repository, encrypted or not."""

    def __init__(self, directory, *, encrypted=False):
        self.directory = directory
        target = directory / "target"
        target.mkdir(parents=True)
        key_file = directory / "key" if encrypted else None
        self.location = StorageLocation(LOCAL, str(target), key_file=key_file)
        make_repository(self.location).storage.make_directory("web")
        self.cpu = CpuShares(2)

    def package(self, name):
        return Location(PACKAGER, self.location, "web", name)

    async def back_up(self, name, chunks):
        return await self.store(name, content(chunks))

    async def store(self, name, data):
        image = self.directory / "image"
        image.write_bytes(data)
        async with (
            open_writer(self.package(name), self.cpu) as writer,
            open_image_stream(image, BufferPool()) as stream,
        ):
            await writer.add_disk(f"{name}_vda.raw", stream, lambda _: None)
            await writer.finish()
            return stream.digest

    @asynccontextmanager
    async def reader(self, name):
        async with open_reader(self.package(name), BufferPool()) as reader:
            yield reader

    async def take(self, source, name, on_progress=lambda _: None):
        async with (
            source.reader(name) as package,
            open_writer(self.package(name), self.cpu) as writer,
        ):
            taken = await writer.take_image(
                f"{name}_vda.raw", package, f"{name}_vda.raw", on_progress
            )
            await writer.finish()
            return taken

    async def restored(self, name):
        content = bytearray()
        async with self.reader(name) as package, package.open_image(f"{name}_vda.raw") as image:
            content += await image.read(0, image.size_bytes)
        return bytes(content)

    def packs(self):
        return sorted(path for path in self.directory.rglob("*.pack"))


@pytest.fixture
def reads(monkeypatch):
    """The ids that were read from packs, in their order."""
    ids = []
    read = ChunkReader._read_anywhere

    def watched(self, leaf, take):
        ids.append(leaf)
        return read(self, leaf, take)

    monkeypatch.setattr(ChunkReader, "_read_anywhere", watched)
    return ids


KINDS = [(False, False), (False, True), (True, False), (True, True)]


@pytest.mark.parametrize(("source", "destination"), KINDS)
async def test_an_image_arrives_whoever_can_read_it(tmp_path, reads, source, destination):
    here = Place(tmp_path / "here", encrypted=source)
    there = Place(tmp_path / "there", encrypted=destination)
    digest = await here.back_up("1", CHUNKS)
    progress = []
    taken = await there.take(here, "1", progress.append)
    assert len(reads) == len(set(reads)) == DATA_CHUNKS - 1, "a chunk was not read just once"
    assert taken.digest == digest
    assert taken.size_bytes == len(CHUNKS) * CHUNK_BYTES
    assert taken.data_bytes == DATA_CHUNKS * CHUNK_BYTES
    assert taken.read_bytes == (DATA_CHUNKS - 1) * CHUNK_BYTES
    assert max(progress) <= taken.data_bytes
    assert await there.restored("1") == content(CHUNKS)
    found = find_repository(there.location)
    assert found.id != find_repository(here.location).id


async def test_stored_bytes_are_what_the_target_grew_by(tmp_path):
    here, there = Place(tmp_path / "here"), Place(tmp_path / "there")
    await here.back_up("1", range(1, 400))
    taken = await there.take(here, "1")
    files = [*there.packs(), *(there.directory / "target" / "web").iterdir()]
    heads = 64 * len(there.packs())
    assert taken.stored_bytes == sum(path.stat().st_size for path in files) - heads


async def test_what_is_there_is_not_read(tmp_path, reads):
    here, there = Place(tmp_path / "here"), Place(tmp_path / "there", encrypted=True)
    await here.back_up("1", CHUNKS)
    await there.take(here, "1")
    await here.back_up("2", [*CHUNKS[:-1], 99, 100])
    reads.clear()
    taken = await there.take(here, "2")
    assert len(reads) == 2
    assert taken.read_bytes == 2 * CHUNK_BYTES
    assert 0 < taken.stored_bytes < CHUNK_BYTES
    assert await there.restored("2") == content([*CHUNKS[:-1], 99, 100])


async def test_from_an_object_store_chunks_are_read_by_few_requests(tmp_path, monkeypatch):
    """Whatever order the image has them in: it is not that of the packs."""
    storage = memory_object_storage()
    monkeypatch.setitem(STORAGES, "test", lambda _at: storage)
    here, there = Place(tmp_path / "here"), Place(tmp_path / "there")
    here.location = StorageLocation("test", "one")
    make_repository(here.location)
    chunks = {number: Random(number).randbytes(CHUNK_BYTES) for number in range(150)}
    order = [*chunks]
    await here.store("1", b"".join(chunks.values()))
    Random(1).shuffle(order)
    shuffled = b"".join(chunks[number] for number in order)
    await here.store("2", shuffled)
    before = requests_for_packs(storage)
    taken = await there.take(here, "2")
    assert taken.read_bytes == len(shuffled)
    # Without reading ahead it is one for each chunk.
    assert requests_for_packs(storage) - before <= len(order) // 3
    assert await there.restored("2") == shuffled


def requests_for_packs(storage):
    counts = storage.traffic.by_kind()
    return sum(count.requests for (_, kind), count in counts.items() if kind == "packs")


async def test_blobs_move_as_they_are(tmp_path):
    here, there = Place(tmp_path / "here"), Place(tmp_path / "there")
    await here.back_up("1", [1])
    await there.take(here, "1")
    (pack,), (copied,) = here.packs(), there.packs()
    assert pack.read_bytes()[64:] == copied.read_bytes()[64:]


async def test_an_empty_image_and_one_of_zeros_arrive(tmp_path):
    here, there = Place(tmp_path / "here"), Place(tmp_path / "there")
    for name, chunks in (("empty", []), ("zeros", [0, 0, 0])):
        digest = await here.back_up(name, chunks)
        taken = await there.take(here, name)
        assert (taken.digest, taken.data_bytes, taken.read_bytes) == (digest, 0, 0)
        assert await there.restored(name) == content(chunks)


async def test_damage_stops_it_and_nothing_is_left(tmp_path):
    here, there = Place(tmp_path / "here"), Place(tmp_path / "there")
    await here.back_up("1", CHUNKS)
    (pack,) = here.packs()
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    with pytest.raises(CorruptError):
        await there.take(here, "1")
    assert there.packs() == []
    assert not list((there.directory / "target" / "web").iterdir())


async def test_a_chunk_that_one_source_lost_comes_from_another(tmp_path):
    here, there, third = (Place(tmp_path / name) for name in ("here", "there", "third"))
    await here.back_up("1", CHUNKS)
    await third.back_up("1", CHUNKS)
    (pack,) = here.packs()
    pack.write_bytes(pack.read_bytes()[:200])
    with pytest.raises(CorruptError):
        await there.take(here, "1")
    await there.take(third, "1")
    assert await there.restored("1") == content(CHUNKS)


async def test_many_at_once_store_each_chunk_once(tmp_path):
    here, there = Place(tmp_path / "here"), Place(tmp_path / "there")
    names = [str(number) for number in range(6)]
    for name in names:
        await here.back_up(name, [*CHUNKS, int(name) + 100])
    taken = []

    async def take(name):
        taken.append(await there.take(here, name))

    async with create_task_group() as tasks:
        for name in names:
            tasks.start_soon(take, name)
    for name in names:
        assert await there.restored(name) == content([*CHUNKS, int(name) + 100])
    stored = sum(len(path.read_bytes()) for path in there.packs())
    assert stored <= sum(len(path.read_bytes()) for path in here.packs()) + 64 * len(names)

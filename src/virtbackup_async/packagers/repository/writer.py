"""Writes repository packages: chunks in the target's repository, and here a map for each disk.

Loaded by ``registry.py``. Equal chunks of all disks, domains and dates are stored once. The order
is packs, index, maps, each durable. Then the lease is checked, so that no prune has missed the
maps. Disks are written in parallel; ``store_stream.py`` puts their chunks into the packs.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from anyio import to_thread
from msgspec.structs import replace

from virtbackup_async.errors import ForeignRepositoryError, StorageError
from virtbackup_async.images.stream import DiskStream
from virtbackup_async.model.extent import Extent
from virtbackup_async.model.packager import Location
from virtbackup_async.packagers.codecs.cpu_shares import CpuShares
from virtbackup_async.packagers.interface import (
    BaseImage,
    NewData,
    PackageReader,
    Progress,
    Stored,
    Taken,
)
from virtbackup_async.packagers.package_files import reading_package
from virtbackup_async.packagers.repository.reader import RepositoryReader
from virtbackup_async.packagers.repository.store_stream import MappedImage, store_stream
from virtbackup_async.packagers.repository.transfer import Transfer
from virtbackup_async.repository import (
    CHUNK_BYTES,
    BaseMap,
    ChunkMap,
    ChunkWriter,
    ChunkWriters,
    MapHead,
    MapWriter,
    Repository,
    Storage,
    make_repository,
    open_leased,
    open_map,
)


@asynccontextmanager
async def open_writer(location: Location, cpu: CpuShares) -> AsyncIterator["RepositoryWriter"]:
    """Write into the repository of the package's target; create the repository if it is missing."""
    level = location.packager.opts.get("compression_lvl") or 0

    writers = cpu.shared(_chunk_writers)

    def open_() -> RepositoryWriter:
        repository = make_repository(location.target)
        return RepositoryWriter(location, repository, writers.open(repository, level), cpu)

    async with open_leased(open_, f"refresh {location.domain}") as writer:
        yield writer


def _chunk_writers(_cpu: CpuShares) -> ChunkWriters:
    return ChunkWriters()


class RepositoryWriter:
    """The ``PackageWriter`` of packages in a repository."""

    def __init__(
        self, location: Location, repository: Repository, chunks: ChunkWriter, cpu: CpuShares
    ) -> None:
        self._location = location
        self._repository = repository
        self._storage = repository.storage
        self._chunks = chunks
        self._cpu = cpu
        self._maps: list[MapWriter] = []
        self._published: list[str] = []
        self._new: dict[str, NewData] = {}

    def take_problem(self) -> str | None:
        return self._chunks.take_problem()

    async def add_disk(self, file: str, stream: DiskStream, on_progress: Progress) -> int:
        image, new = await self._store_stream(file, stream, None, on_progress)
        await to_thread.run_sync(image.finish)
        return new.compressed_bytes + image.length_bytes

    def new_data(self, file: str) -> NewData:
        return self._new[file]

    @asynccontextmanager
    async def open_base(
        self, file: str, directory: str = ""
    ) -> AsyncIterator["RepositoryBaseImage"]:
        # After the lease: a prune keeps the chunks that the map needs now.
        location = replace(self._location, domain=directory or self._location.domain)
        name = location.stored_name(file)
        chunk_map = await to_thread.run_sync(_open_map, self._storage, name)
        try:
            if chunk_map.head.repository_id != self._repository.id:
                raise ForeignRepositoryError(f"{chunk_map.where} belongs to another repository")
            yield RepositoryBaseImage(BaseMap(chunk_map), self._chunks)
        finally:
            chunk_map.close()

    async def add_changes(
        self, file: str, stream: DiskStream, base: BaseImage, on_progress: Progress
    ) -> Stored:
        if not isinstance(base, RepositoryBaseImage):
            message = "a base must come from open_base"
            raise TypeError(message)
        image, new = await self._store_stream(file, stream, base.map, on_progress)
        await to_thread.run_sync(_finish, base.map, image)
        stored_bytes = new.compressed_bytes + image.length_bytes
        return Stored(stored_bytes, image.data_bytes, image.digest.finish())

    async def take_image(
        self, file: str, source: PackageReader, source_file: str, on_progress: Progress
    ) -> Taken | None:
        if not isinstance(source, RepositoryReader):
            return None
        async with source.open_chunks(source_file) as (chunk_map, reader):
            image = await to_thread.run_sync(
                self._new_map, self._location.stored_name(file), chunk_map.head.size_bytes
            )
            transfer = Transfer(reader, self._chunks, image, self._cpu)
            async with self._cpu.taking_part():
                await transfer.run(chunk_map, on_progress)
        await to_thread.run_sync(image.finish)
        return Taken(
            chunk_map.head.size_bytes,
            image.data_bytes,
            transfer.read_bytes,
            transfer.stored_bytes + image.length_bytes,
            image.digest.finish(),
        )

    async def finish(self) -> None:
        await to_thread.run_sync(self._chunks.publish)
        for image in self._maps:
            try:
                await to_thread.run_sync(image.publish)
            except StorageError as error:
                # Although there is an error, it may have its name, unless that is another file's.
                if not isinstance(error.__cause__, FileExistsError):
                    self._published.append(image.name)
                raise
            self._published.append(image.name)
        await to_thread.run_sync(self._storage.sync_names, self._location.domain)
        await to_thread.run_sync(self._chunks.check)

    async def discard(self) -> None:
        while self._published:
            await to_thread.run_sync(self._storage.remove, self._published[-1])
            self._published.pop()
        await to_thread.run_sync(self._chunks.discard)

    def refresh(self) -> None:
        """Refresh the lease. Blocks."""
        self._chunks.refresh()

    def close(self) -> None:
        """Remove maps without a name, and release the lease. Blocks."""
        try:
            for image in self._maps:
                image.discard()
        finally:
            self._chunks.close()

    async def _store_stream(
        self, file: str, stream: DiskStream, base: BaseMap | None, on_progress: Progress
    ) -> tuple[MapWriter, NewData]:
        """Store a stream's chunks; return their map, and how much of the data was new."""
        name = self._location.stored_name(file)
        image = await to_thread.run_sync(self._new_map, name, stream.size_bytes)
        mapped = MappedImage(image, base)
        async with self._cpu.taking_part():
            new = await store_stream(stream, self._chunks, mapped, self._cpu, on_progress)
        self._new[file] = new
        return image, new

    def _new_map(self, name: str, size_bytes: int) -> MapWriter:
        image = MapWriter(self._storage, name, MapHead(self._repository.id, size_bytes))
        self._maps.append(image)
        return image


class RepositoryBaseImage:
    """The ``BaseImage`` in a repository."""

    def __init__(self, base: BaseMap, chunks: ChunkWriter) -> None:
        self.map = base
        self.size_bytes = base.size_bytes
        self._chunks = chunks

    async def choose(
        self, changed: Sequence[Extent], doubtful: Sequence[Extent] = ()
    ) -> tuple[Extent, ...]:
        are_missing = self._chunks.are_missing
        return await to_thread.run_sync(self.map.choose, changed, doubtful, are_missing)

    async def sample(self, percent: float, data: Sequence[Extent] | None) -> tuple[Extent, ...]:
        return await to_thread.run_sync(self.map.sample, percent, data)

    async def is_as_it_was(self, parts: Sequence[Extent], stream: DiskStream) -> bool:
        expected = dict(await to_thread.run_sync(_leaves, self.map, parts))
        async for chunk in stream.pieces():
            first = chunk.offset // CHUNK_BYTES
            for number, leaf in enumerate(chunk.leaves, first):
                if expected.pop(number, None) != leaf:
                    return False
        return not expected


def _open_map(storage: Storage, name: str) -> ChunkMap:
    with reading_package(storage.where(name)):
        return open_map(storage, name)


def _leaves(base: BaseMap, parts: Sequence[Extent]) -> list[tuple[int, bytes]]:
    return [*base.leaves(parts)]


def _finish(base: BaseMap, image: MapWriter) -> None:
    for entries in base.take_rest():
        image.add(entries)
    image.finish()

"""Backups of small images in a repository, made and read by the packager, without an engine."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from fakes.repository_files import files_of
from fakes.sudden_death import killed_everywhere
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.sinks.sparse import write_sparse
from virtbackup_async.images.sources.file import open_image_stream
from virtbackup_async.model.backup import Packager
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.packagers.codecs.cpu_shares import CpuShares
from virtbackup_async.packagers.registry import open_reader, open_writer
from virtbackup_async.packagers.repository.map_files import list_maps
from virtbackup_async.repository import ChunkMap, open_map, open_storage
from virtbackup_async.repository.format.chunks import CHUNK_BYTES
from virtbackup_async.repository.index.segments import Segment, open_index
from virtbackup_async.repository.prune.prune import Pruned, prune_repository
from virtbackup_async.repository.storage.layout import list_packs, list_segments
from virtbackup_async.repository.storage.repository_file import find_repository

PACKAGER = Packager("repository", {"compression_lvl": 1})


def content(chunks: Sequence[int]) -> bytes:
    """An image of chunks that are told from each other by a number; 0 is one of zeros."""
    return b"".join(number.to_bytes(4, "big") * (CHUNK_BYTES // 4) for number in chunks)


def ids_of(segment: Segment) -> list[bytes]:
    """The ids in a segment of the index, in its order."""
    return [record["id"].tobytes() for record in segment.read_records(0, segment.shape.records)]


class SmallRepository:
    """A target with a repository, and the backups in it."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.location = StorageLocation.of(target)
        self.directory = target / "web"
        self.directory.mkdir(parents=True, exist_ok=True)

    async def back_up(self, name: str, data: bytes) -> None:
        """Make a backup of one disk."""
        image = self.target.parent / f"{name}.image"
        image.write_bytes(data)
        limiter = CpuShares(1)
        async with (
            open_writer(PACKAGER, self.directory, name, limiter) as package,
            open_image_stream(image, BufferPool()) as stream,
        ):
            await package.add_disk(f"{name}_vda.raw", stream, lambda _: None)
            await package.finish()

    async def restored(self, name: str) -> bytes:
        """Read a backup back."""
        path = self.target.parent / f"{name}.restored"
        path.unlink(missing_ok=True)
        async with (
            open_reader(PACKAGER, self.directory, name, BufferPool()) as package,
            package.open_disk(f"{name}_vda.raw") as stream,
        ):
            await write_sparse(stream, path, lambda _: None)
        return path.read_bytes()

    def prune(self) -> Pruned:
        """Prune the repository by the maps of its target."""
        repository = find_repository(self.location)
        assert repository
        return prune_repository(repository, partial(list_maps, repository.storage), lambda: None)

    def remove(self, name: str) -> None:
        """Remove a backup, as ``clean`` does before it prunes."""
        self.map_path(name).unlink()

    def map_path(self, name: str) -> Path:
        """The map of a backup's disk."""
        return self.directory / f"{name}_vda.raw.map"

    def map_name(self, name: str) -> str:
        """The name of that map in the storage of the target."""
        return f"web/{name}_vda.raw.map"

    def open_map(self, name: str) -> ChunkMap:
        """That map, open; the caller closes it."""
        return open_map(open_storage(self.location), self.map_name(name))

    def segments(self) -> list[Path]:
        """The segments of the index that are there."""
        storage = open_storage(self.location)
        return [Path(storage.where(name)) for name in list_segments(storage)]

    def packs(self) -> list[Path]:
        """The packs that are there."""
        repository = find_repository(self.location)
        assert repository
        return [files_of(repository).pack(pack) for pack in list_packs(repository.storage)]

    def indexed(self) -> list[bytes]:
        """The ids in the index, sorted."""
        repository = find_repository(self.location)
        assert repository
        index = open_index(repository)
        try:
            return sorted(id_ for segment in index.segments for id_ in ids_of(segment))
        finally:
            index.close()


def each_death(
    directory: Path,
    prepare: Callable[[SmallRepository], None],
    work: Callable[[SmallRepository], None],
) -> Iterator[SmallRepository]:
    """Give the place after each death of ``work``, each made from the same beginning."""
    begun = SmallRepository(directory / "begun" / "target")
    prepare(begun)
    place = directory / "place"

    def work_on_copy():
        work(SmallRepository(place / "target"))

    def renew():
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(begun.target.parent, place)

    renew()
    deaths = 0
    for _ in killed_everywhere(work_on_copy):
        deaths += 1
        yield SmallRepository(place / "target")
        renew()
    assert deaths > 10, "it was not killed where it does something"

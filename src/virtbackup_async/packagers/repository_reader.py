"""Reading disks out of a repository, by their maps.

Opened by ``registry.py``. Each chunk is held against its id as it is read. All of a map is checked
before the first byte of its disk is read.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from anyio import CancelScope, to_thread

from virtbackup_async.errors import CorruptError
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.stream import DiskStream, open_stream
from virtbackup_async.packagers.corrupt import file_names, reading
from virtbackup_async.packagers.names import map_path
from virtbackup_async.repository.chunk_maps import ChunkMap, data_extents, open_map
from virtbackup_async.repository.chunk_reader import ChunkReader
from virtbackup_async.repository.chunks import CHUNK_BYTES
from virtbackup_async.repository.store import find_repository

_SUFFIX = ".map"


@asynccontextmanager
async def open_repository_reader(
    directory: Path, name: str, buffers: BufferPool
) -> AsyncIterator["RepositoryReader"]:
    """Read from the repository of the target that ``directory`` is in."""
    reader = RepositoryReader(directory, name, buffers)
    try:
        yield reader
    finally:
        with CancelScope(shield=True):
            await to_thread.run_sync(reader.close)


class RepositoryReader:
    """The ``PackageReader`` of packages in a repository."""

    def __init__(self, directory: Path, name: str, buffers: BufferPool) -> None:
        self._directory = directory
        self._name = name
        self._buffers = buffers
        self._chunks: ChunkReader | None = None

    @asynccontextmanager
    async def open_disk(self, file: str) -> AsyncIterator[DiskStream]:
        path = map_path(self._directory, file)
        image = await to_thread.run_sync(self._open_image, path)
        try:
            async with open_stream(image, self._buffers, file) as stream:
                yield stream
        finally:
            image.close()

    async def files(self) -> tuple[str, ...]:
        return await to_thread.run_sync(self._files)

    def close(self) -> None:
        """Let go of the packs. Blocks."""
        if self._chunks is not None:
            self._chunks.close()

    def _open_image(self, path: Path) -> "_MappedImage":
        with reading(path):
            chunk_map = open_map(path)
        try:
            return _MappedImage(chunk_map, self._open_chunks(path))
        except BaseException:
            chunk_map.close()
            raise

    def _open_chunks(self, path: Path) -> ChunkReader:
        if self._chunks is None:
            repository = find_repository(self._directory.parent)
            if repository is None:
                raise CorruptError(f"the repository of {path} is missing")
            self._chunks = ChunkReader(repository)
        return self._chunks

    def _files(self) -> tuple[str, ...]:
        found = (
            n
            for n in file_names(self._directory)
            if n.startswith(f"{self._name}_") and n.endswith(_SUFFIX)
        )
        return tuple(sorted(name.removesuffix(_SUFFIX) for name in found))


class _MappedImage:
    """An image in a repository; an ``ImageReader``."""

    def __init__(self, chunk_map: ChunkMap, chunks: ChunkReader) -> None:
        self._map = chunk_map
        self._chunks = chunks
        self._number = -1
        self._chunk = memoryview(b"")
        self.size_bytes = chunk_map.head.size_bytes
        self.data_extents = data_extents(chunk_map.entries(), self.size_bytes)

    def read(self, offset: int, target: memoryview) -> None:
        while target:
            number, start = divmod(offset, CHUNK_BYTES)
            length = min(len(target), CHUNK_BYTES - start)
            self._go_to(number)
            if len(self._chunk) < start + length:
                raise CorruptError(f"chunk {number} of {self._map.path} is too short")
            target[:length] = self._chunk[start : start + length]
            offset += length
            target = target[length:]

    def close(self) -> None:
        self._map.close()

    def _go_to(self, number: int) -> None:
        if number == self._number:
            return
        entry = self._map.entry(number)
        if entry is None:
            # Between two extents that were joined because there are too many.
            self._chunk = memoryview(bytes(CHUNK_BYTES))
        else:
            try:
                self._chunk = memoryview(self._chunks.read(entry.id))
            except CorruptError as error:
                raise _lost(self._map.path, number, error) from error
        self._number = number


def _lost(path: Path, number: int, error: CorruptError) -> CorruptError:
    """Say which bytes of the image are not to be had: the rest of it may be of use."""
    first = number * CHUNK_BYTES
    where = f"bytes {first} to {first + CHUNK_BYTES - 1} of {path.name.removesuffix(_SUFFIX)}"
    return CorruptError(f"{where}: {error.message}", hint=error.hint)

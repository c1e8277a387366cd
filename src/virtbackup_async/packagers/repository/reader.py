"""Reads disks from a repository, by their maps.

Loaded by ``registry.py``. Each chunk is compared with its id when it is read. A map is checked
completely before the first byte of its disk is read.
"""

from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from itertools import groupby
from pathlib import PurePosixPath
from threading import Lock
from typing import NamedTuple

from anyio import CancelScope, to_thread

from virtbackup_async.concurrency import open_cpu_threads
from virtbackup_async.errors import SEALED_HINT, ConfigError, CorruptError
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.pieces import Wanted
from virtbackup_async.images.stream import DiskStream, open_stream
from virtbackup_async.model.amounts import size
from virtbackup_async.model.extent import Extent
from virtbackup_async.model.packager import Location
from virtbackup_async.packagers.interface import check_range
from virtbackup_async.packagers.package_files import files_among, reading_package
from virtbackup_async.repository import (
    CHUNK_BYTES,
    ChunkMap,
    ChunkReader,
    Data,
    Kind,
    MapEntry,
    ReadAhead,
    data_extents,
    find_repository,
    length_of,
    open_map,
    open_storage,
)

_ZEROS = bytes(CHUNK_BYTES)
_KEPT_CHUNKS = 16


class _Slice(NamedTuple):
    """Memory to fill from one chunk, starting at ``start``."""

    number: int
    start: int
    target: memoryview


@asynccontextmanager
async def open_reader(location: Location, buffers: BufferPool) -> AsyncIterator["RepositoryReader"]:
    """Open a package whose data is in the repository of its target."""
    with open_cpu_threads("decompress") as threads:
        reader = RepositoryReader(location, buffers, threads)
        try:
            yield reader
        finally:
            with CancelScope(shield=True):
                await to_thread.run_sync(reader.close)


class RepositoryReader:
    """The ``PackageReader`` of packages in a repository."""

    def __init__(
        self, location: Location, buffers: BufferPool, threads: ThreadPoolExecutor
    ) -> None:
        self._location = location
        self._buffers = buffers
        self._threads = threads
        self._chunks: ChunkReader | None = None

    @asynccontextmanager
    async def open_disk(self, file: str) -> AsyncIterator[DiskStream]:
        name = self._location.stored_name(file)
        image = await to_thread.run_sync(partial(self._open_image, name, in_order=True))
        try:
            async with open_stream(
                image, self._buffers, file, known_leaf=image.known_leaf
            ) as stream:
                yield stream
        finally:
            image.close()

    @asynccontextmanager
    async def open_image(self, file: str) -> AsyncIterator["MappedAccess"]:
        name = self._location.stored_name(file)
        image = await to_thread.run_sync(self._open_image, name)
        try:
            digest = await to_thread.run_sync(image.read_digest)
            yield MappedAccess(image, digest)
        finally:
            image.close()

    @asynccontextmanager
    async def open_chunks(self, file: str) -> AsyncIterator[tuple[ChunkMap, ReadAhead]]:
        """Open the map of an image, and what reads its chunks; errors as of ``open_disk``.

        The caller adds the chunks that it is going to read.
        """
        name = self._location.stored_name(file)
        chunk_map, chunks = await to_thread.run_sync(self._open_chunk_map, name)
        ahead = chunks.read_ahead(self._buffers.room)
        try:
            yield chunk_map, ahead
        finally:
            ahead.close()
            chunk_map.close()

    async def files(self) -> tuple[str, ...]:
        return await to_thread.run_sync(self._files)

    def close(self) -> None:
        """Close the packs. Blocks."""
        if self._chunks is not None:
            self._chunks.close()

    def _files(self) -> tuple[str, ...]:
        location = self._location
        storage = open_storage(location.target)
        with reading_package(storage.where(location.domain)):
            names = storage.names(location.domain, {Kind.FILE})
        return files_among(names, location)

    def _open_image(self, name: str, *, in_order: bool = False) -> "_MappedImage":
        chunk_map, chunks = self._open_chunk_map(name)
        with ExitStack() as undo:
            undo.callback(chunk_map.close)
            refuse_unreadable(chunks, chunk_map.where)
            coming = (block["leaf"] for block in chunk_map.blocks()) if in_order else ()
            ahead = chunks.read_ahead(self._buffers.room, coming)
            undo.callback(ahead.close)
            image = _MappedImage(chunk_map, ahead, self._threads)
            undo.pop_all()
        return image

    def _open_chunk_map(self, name: str) -> tuple[ChunkMap, ChunkReader]:
        storage = open_storage(self._location.target)
        with reading_package(storage.where(name)):
            chunk_map = open_map(storage, name)
        try:
            return chunk_map, self._open_chunks(chunk_map.where)
        except BaseException:
            chunk_map.close()
            raise

    def _open_chunks(self, where: str) -> ChunkReader:
        if self._chunks is None:
            repository = find_repository(self._location.target)
            if repository is None:
                raise CorruptError(f"the repository of {where} is missing")
            self._chunks = ChunkReader(repository)
        return self._chunks


def refuse_unreadable(chunks: ChunkReader, where: str) -> None:
    """Check that chunks can be opened, before anything is done that needs them.

    Raises:
        ConfigError: they are sealed, and the recovery key is not here.
    """
    if not chunks.sealing.can_read:
        raise ConfigError(f"only the recovery key opens it: {where}", hint=SEALED_HINT)


class _MappedImage:
    """An image in a repository; an ``ImageReader``. Its chunks are decompressed in parallel."""

    def __init__(self, chunk_map: ChunkMap, chunks: ReadAhead, threads: ThreadPoolExecutor) -> None:
        self.where = chunk_map.where
        self.read_digest = chunk_map.read_digest
        self._map = chunk_map
        self._chunks = chunks
        self._threads = threads
        self._turn = Lock()
        self._checked: dict[int, bytes] = {}
        self.size_bytes = chunk_map.head.size_bytes
        self.data_extents = data_extents(chunk_map.entries(), self.size_bytes)

    def read(self, wanted: Sequence[Wanted]) -> None:
        coming = [
            self._threads.submit(self._read, number, self.entry(number), list(pieces))
            for number, pieces in groupby(_pieces(wanted), key=lambda piece: piece.number)
        ]
        # Wait for all, even if one fails: they write to the buffer, and read the packs.
        wait(coming)
        for chunk in coming:
            chunk.result()

    def entry(self, number: int) -> MapEntry | None:
        """Return the map's entry of a chunk; for any number of threads."""
        with self._turn:
            return self._map.entry(number)

    def known_leaf(self, offset: int) -> bytes | None:
        """Return the leaf of a chunk that was read in full and verified; once for each."""
        return self._checked.pop(offset // CHUNK_BYTES, None)

    def content(self, number: int) -> Data:
        """Return a chunk; the last one of an image can reach beyond the image's end.

        Raises:
            CorruptError: it is damaged or missing.
        """
        return self._content(number, self.entry(number))

    def close(self) -> None:
        self._chunks.close()
        self._map.close()

    def _read(self, number: int, entry: MapEntry | None, pieces: Sequence[_Slice]) -> None:
        """Fill the pieces of a chunk."""
        data = memoryview(self._content(number, entry))
        for piece in pieces:
            content = data[piece.start : piece.start + len(piece.target)]
            if len(content) < len(piece.target):
                raise CorruptError(f"chunk {number} of {self._map.where} is too short")
            piece.target[:] = content
        whole = length_of(number, self.size_bytes)
        if entry is not None and len(pieces) == 1 and len(pieces[0].target) == len(data) == whole:
            self._checked[number] = entry.leaf

    def _content(self, number: int, entry: MapEntry | None) -> Data:
        if entry is None:
            # The chunk is between two extents that were joined because there were too many.
            return _ZEROS
        try:
            return self._chunks.read(entry.leaf)
        except CorruptError as error:
            raise _lost(self._map.name, number, error) from error


class MappedAccess:
    """The ``RandomAccess`` to an image in a repository.

    Each chunk is compared with its id when it is decompressed, before any of its bytes is
    returned. The digest is computed from the ids: a caller that finds it in the definition knows
    that it gets the bytes that were backed up. The last chunks are kept, for small reads in a row.
    """

    def __init__(self, image: _MappedImage, digest: str) -> None:
        self.size_bytes = image.size_bytes
        self.digest = digest
        self._image = image
        self._turn = Lock()
        self._kept: OrderedDict[int, Data] = OrderedDict()

    async def extents(self) -> tuple[Extent, ...]:
        return self._image.data_extents

    async def read(self, offset: int, length: int) -> bytes:
        check_range(self, offset, length)
        return await to_thread.run_sync(self._read, offset, length)

    def _read(self, offset: int, length: int) -> bytes:
        end = offset + length
        pieces: list[memoryview] = []
        while offset < end:
            number, start = divmod(offset, CHUNK_BYTES)
            piece = memoryview(self._chunk(number))[start : min(CHUNK_BYTES, start + end - offset)]
            if not piece:
                raise CorruptError(f"chunk {number} of {self._image.where} is too short")
            pieces.append(piece)
            offset += len(piece)
        return b"".join(pieces)

    def _chunk(self, number: int) -> Data:
        with self._turn:
            if number in self._kept:
                self._kept.move_to_end(number)
                return self._kept[number]
        data = self._image.content(number)
        with self._turn:
            self._kept[number] = data
            if len(self._kept) > _KEPT_CHUNKS:
                self._kept.popitem(last=False)
        return data


def _pieces(wanted: Sequence[Wanted]) -> Iterator[_Slice]:
    """Split the ranges at the starts of chunks."""
    for offset, target in wanted:
        done = 0
        while done < len(target):
            number, start = divmod(offset + done, CHUNK_BYTES)
            piece = target[done : done + CHUNK_BYTES - start]
            yield _Slice(number, start, piece)
            done += len(piece)


def _lost(name: str, number: int, error: CorruptError) -> CorruptError:
    """Return the error with the image's lost bytes: the other bytes can still be useful."""
    where = f"{size(CHUNK_BYTES)} at {size(number * CHUNK_BYTES)} of {PurePosixPath(name).stem}"
    return error.reworded(f"{where}: {error.message}")

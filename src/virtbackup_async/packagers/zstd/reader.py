"""Reads disks from zstd packages: this program's, and virt-backup's, which lack the disk's size.

Opened by ``registry.py``. This program's packages have a map. It lists their runs, which are
decompressed in parallel, and their holes, which are neither read nor decompressed. A frame without
a size is decompressed twice, the first time to learn the size: a restore needs it before it writes,
and so damage is found before anything is written.
"""

from array import array
from bisect import bisect_right
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO, Final

import zstandard
from anyio import CancelScope, to_thread

from virtbackup_async.concurrency import CPU_THREADS, open_cpu_threads
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.digest import check_length
from virtbackup_async.images.pieces import Wanted
from virtbackup_async.images.stream import DiskStream, open_stream
from virtbackup_async.model.extent import Extent
from virtbackup_async.model.packager import Location
from virtbackup_async.packagers.package_files import files_of, open_file, reading_package
from virtbackup_async.packagers.read_anywhere import ReadAnywhere, only_in_order
from virtbackup_async.packagers.zstd.frame import LAST_BLOCK
from virtbackup_async.packagers.zstd.map import FramePart, ZstdMap, pieces_of, read_map
from virtbackup_async.packagers.zstd.parts import (
    Part,
    Room,
    frame_start,
    read_frame,
    read_piece,
    read_pieces,
)

_READ_BUFFER_BYTES: Final = 256 * 1024
# Runs that are being decompressed, or wait to be read.
_MOST_AHEAD: Final = CPU_THREADS + 1


@asynccontextmanager
async def open_reader(location: Location, buffers: BufferPool) -> AsyncIterator["ZstdReader"]:
    """Open a package; all its disks are decompressed by the same few threads."""
    with open_cpu_threads("decompress") as threads:
        yield ZstdReader(location, buffers, threads)


class ZstdReader:
    """The ``PackageReader`` of zstd packages."""

    def __init__(self, location: Location, buffers: BufferPool, threads: Executor) -> None:
        self._location = location
        self._buffers = buffers
        self._threads = threads

    @asynccontextmanager
    async def open_disk(self, file: str) -> AsyncIterator[DiskStream]:
        path = self._location.path(file)
        frame = await to_thread.run_sync(_open_frame, path, self._threads)
        try:
            async with open_stream(frame, self._buffers, file) as stream:
                yield stream
        finally:
            with CancelScope(shield=True):
                await to_thread.run_sync(frame.close)

    @asynccontextmanager
    async def open_image(self, file: str) -> AsyncIterator[ReadAnywhere]:
        runs = await to_thread.run_sync(_open_runs, self._location.path(file), file)
        try:
            yield ReadAnywhere(runs)
        finally:
            runs.close()

    async def files(self) -> tuple[str, ...]:
        return await files_of(self._location)


class _Runs:
    """The runs of a frame with a map, decompressed as they are needed; an ``ImageReader``.

    Offsets can come in any order. One run stays decompressed, for reads that follow each other.
    """

    def __init__(
        self, path: Path, file: BinaryIO, zstd_map: ZstdMap, size_bytes: int, end: int
    ) -> None:
        self._path = path
        self._file = file
        self.size_bytes = size_bytes
        self.data_extents = zstd_map.extents
        self._starts, self._places, self._are_holes = array("Q"), array("Q"), bytearray()
        for piece in pieces_of(zstd_map, size_bytes, end):
            self._starts.append(piece.start)
            self._places.append(piece.place)
            self._are_holes.append(piece.is_hole)
        self._starts.append(size_bytes)
        self._places.append(end - len(LAST_BLOCK))
        self._room = Room()
        self._current = (-1, Part(0))

    def read(self, wanted: Sequence[Wanted]) -> None:
        with reading_package(self._path):
            for offset, target in wanted:
                self._read(offset, target)

    def close(self) -> None:
        self._file.close()

    def _read(self, offset: int, target: memoryview) -> None:
        while target:
            number = bisect_right(self._starts, offset) - 1
            _, rest = self._decompressed(number).split(offset - self._starts[number])
            part, _ = rest.split(len(target))
            part.copy_to(target)
            offset += part.length
            target = target[part.length :]

    def _decompressed(self, number: int) -> Part:
        if self._current[0] != number:
            self._current = (-1, Part(0))
            start, place = self._starts[number], self._places[number]
            piece = FramePart(
                start,
                self._starts[number + 1] - start,
                place,
                self._places[number + 1] - place,
                is_hole=bool(self._are_holes[number]),
            )
            self._current = (number, read_piece(self._file.fileno(), piece, self._room))
        return self._current[1]


class _Frame:
    """The frame of a file, read once from front to back; an ``ImageReader``."""

    def __init__(self, path: Path, file: BinaryIO, threads: Executor) -> None:
        self._path = path
        self._file = file
        self.size_bytes = _size_of(file)
        self.data_extents: tuple[Extent, ...] | None = None
        self._parts = read_frame(file)
        found = read_map(file.fileno(), self.size_bytes)
        if found is not None:
            zstd_map, end = found
            self.data_extents = zstd_map.extents
            pieces = pieces_of(zstd_map, self.size_bytes, end)
            self._parts = read_pieces(file.fileno(), pieces, threads, _MOST_AHEAD)
        self._part = Part(0)
        self._position = 0

    def read(self, wanted: Sequence[Wanted]) -> None:
        with reading_package(self._path):
            for offset, target in wanted:
                self._read(offset, target)

    def close(self) -> None:
        self._parts.close()
        self._file.close()

    def _read(self, offset: int, target: memoryview) -> None:
        while self._position < offset:
            self._next(offset - self._position)
        while target:
            part = self._next(len(target))
            part.copy_to(target)
            target = target[part.length :]
        if self._position == self.size_bytes:
            self._expect_end()

    def _next(self, most_bytes: int) -> Part:
        """Return the next bytes, at most ``most_bytes``."""
        if not self._part.length:
            self._part = next(self._parts, Part(0))
        if not self._part.length:
            raise EOFError("it is shorter than it says")
        part, self._part = self._part.split(most_bytes)
        self._position += part.length
        return part

    def _expect_end(self) -> None:
        if self._part.length or any(part.length for part in self._parts):
            raise EOFError("it is longer than it says")


def _size_of(file: BinaryIO) -> int:
    size_bytes = zstandard.frame_content_size(frame_start(file))
    if size_bytes < 0:
        size_bytes = sum(part.length for part in read_frame(file))
    check_length(size_bytes)
    return size_bytes


def _open_frame(path: Path, threads: Executor) -> _Frame:
    with reading_package(path):
        file = open_file(path, _READ_BUFFER_BYTES)
        try:
            return _Frame(path, file, threads)
        except BaseException:
            file.close()
            raise


def _open_runs(path: Path, name: str) -> _Runs:
    with reading_package(path):
        file = open_file(path, 0)
        try:
            return _runs_of(path, name, file)
        except BaseException:
            file.close()
            raise


def _runs_of(path: Path, name: str, file: BinaryIO) -> _Runs:
    size_bytes = zstandard.frame_content_size(frame_start(file))
    if size_bytes >= 0:
        check_length(size_bytes)
        found = read_map(file.fileno(), size_bytes)
        if found is not None:
            zstd_map, end = found
            return _Runs(path, file, zstd_map, size_bytes, end)
    raise only_in_order(name, path)

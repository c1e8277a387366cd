"""Reading disks out of zstd packages: ours, and those of virt-backup, which do not say their size.

Opened by ``registry.py``. A frame without a size is decompressed twice, the first time to learn it:
a restore wants to know before it writes, and damage is found before anything is written.
"""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO, Final

import zstandard
from anyio import to_thread

from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.stream import DiskStream, open_stream
from virtbackup_async.packagers.corrupt import reading
from virtbackup_async.packagers.names import zstd_path

_LONGEST_HEADER_BYTES: Final = 18
_CHECKSUM_BYTES: Final = 4
_RLE_BLOCK: Final = 1


class ZstdReader:
    """The ``PackageReader`` of zstd packages."""

    def __init__(self, directory: Path, name: str, buffers: BufferPool) -> None:
        self._directory = directory
        self._name = name
        self._buffers = buffers

    @asynccontextmanager
    async def open_disk(self, file: str) -> AsyncIterator[DiskStream]:
        path = zstd_path(self._directory, self._name, file)
        frame = await to_thread.run_sync(_open_frame, path)
        try:
            async with open_stream(frame, self._buffers, file) as stream:
                yield stream
        finally:
            frame.close()

    async def files(self) -> tuple[str, ...]:
        return await to_thread.run_sync(self._files)

    def _files(self) -> tuple[str, ...]:
        prefix, suffix = f"{self._name}_", ".zstd"
        with reading(self._directory):
            names = [path.name for path in self._directory.iterdir() if path.is_file()]
        found = (n for n in names if n.startswith(prefix) and n.endswith(suffix))
        return tuple(sorted(name[len(prefix) : -len(suffix)] for name in found))


class _Frame:
    """The one frame of a file, decompressed once from front to back; an ``ImageReader``."""

    data_extents = None

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._pending = memoryview(b"")
        self._blocks = _decompress(file)
        self.size_bytes = self._known_size()
        self._left_bytes = self.size_bytes

    def read(self, offset: int, target: memoryview) -> None:  # noqa: ARG002 -- only forward
        with reading(self._path):
            self._left_bytes -= len(target)
            while target:
                if not self._pending:
                    self._pending = memoryview(self._next_data())
                count = min(len(target), len(self._pending))
                target[:count] = self._pending[:count]
                target, self._pending = target[count:], self._pending[count:]
            if not self._left_bytes:
                self._expect_end()

    def close(self) -> None:
        self._file.close()

    def _known_size(self) -> int:
        size_bytes = zstandard.frame_content_size(_header(self._file))
        if size_bytes < 0:
            size_bytes = sum(map(len, self._blocks))
            self._file.seek(0)
            self._blocks = _decompress(self._file)
        return size_bytes

    def _next_data(self) -> bytes:
        data = next(self._blocks, None)
        if data is None:
            raise EOFError("it is shorter than it says")
        return data

    def _expect_end(self) -> None:
        if self._pending or any(self._blocks):
            raise EOFError("it is longer than it says")


def _decompress(file: BinaryIO) -> Iterator[bytes]:
    """Decompress block by block.

    A block gives 128 KiB at most, so no input however small makes much output at once; and the
    library's own reader takes a file that is cut off for one that ends.
    """
    decompressor = zstandard.ZstdDecompressor().decompressobj()
    header = _header(file)
    has_checksum = zstandard.get_frame_parameters(header).has_checksum
    decompressor.decompress(_exactly(file, zstandard.frame_header_size(header)))
    is_last = False
    while not is_last:
        block, is_last = _next_block(file)
        if data := decompressor.decompress(block):
            yield data
    if has_checksum:
        decompressor.decompress(_exactly(file, _CHECKSUM_BYTES))
    if not decompressor.eof:
        raise EOFError("its frame has no end")


def _next_block(file: BinaryIO) -> tuple[bytes, bool]:
    """A block with its header, and whether it is the frame's last (RFC 8878, section 3.1.1.2)."""
    header = _exactly(file, 3)
    bits = int.from_bytes(header, "little")
    kind, length_bytes = bits >> 1 & 3, bits >> 3
    return header + _exactly(file, 1 if kind == _RLE_BLOCK else length_bytes), bool(bits & 1)


def _header(file: BinaryIO) -> bytes:
    header = file.read(_LONGEST_HEADER_BYTES)
    file.seek(0)
    return header


def _exactly(file: BinaryIO, length_bytes: int) -> bytes:
    data = file.read(length_bytes)
    if len(data) < length_bytes:
        raise EOFError("it is cut off")
    return data


def _open_frame(path: Path) -> _Frame:
    with reading(path):
        # Neither a link nor a pipe in the place of a package may lead us on.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        file = os.fdopen(fd, "rb")
        try:
            return _Frame(path, file)
        except BaseException:
            file.close()
            raise

"""Reads disks from tar packages: this program's, and the dense ones of virt-backup.

Loaded by ``registry.py``. Each open disk has its own tarfile, so several can be read at once. A
compressed archive of this program is decompressed on all cores, but only the members that are
needed. Other programs' archives are one long stream, which one thread decompresses from the start
to the member.

``tarfile`` believes the lengths in headers: a name of a terabyte, or a list of a billion extents,
takes a few bytes in a compressed archive, and would be read into memory. It reads headers with
``read``, which is limited here; disks are read with ``readinto``.
"""

import bz2
import io
import lzma
import os
import tarfile
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import BinaryIO, Final, cast

from anyio import CancelScope, to_thread
from zlib_ng import gzip_ng

from virtbackup_async.concurrency import CPU_THREADS, open_cpu_threads
from virtbackup_async.errors import CorruptError
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.digest import check_length
from virtbackup_async.images.pieces import Wanted
from virtbackup_async.images.stream import DiskStream, open_stream
from virtbackup_async.model.extent import Extent
from virtbackup_async.model.names import plain_name
from virtbackup_async.model.packager import Location
from virtbackup_async.packagers.package_files import open_file, reading_package
from virtbackup_async.packagers.read_anywhere import ReadAnywhere, only_in_order
from virtbackup_async.packagers.tar.format import Layout
from virtbackup_async.packagers.tar.members import split_of
from virtbackup_async.packagers.tar.split_file import SplitFile

_GZIP: Final = b"\x1f\x8b"
_BZIP2: Final = b"BZh"
_XZ: Final = b"\xfd7zXZ\0"
# Members that are being decompressed, or wait to be read.
_MOST_AHEAD: Final = CPU_THREADS + 1
# The largest header that this program writes is a list of 65536 extents, 2.5 MiB.
_MOST_HEADER_BYTES: Final = 4 << 20
_MOST_HEADERS_BYTES: Final = 64 << 20


@asynccontextmanager
async def open_reader(location: Location, buffers: BufferPool) -> AsyncIterator["TarReader"]:
    """Open an archive; all its disks are decompressed by the same few threads."""
    (path,) = location.paths(())
    with open_cpu_threads("decompress") as threads:
        yield TarReader(path, buffers, threads)


class TarReader:
    """The ``PackageReader`` of tar packages."""

    def __init__(self, path: Path, buffers: BufferPool, threads: Executor) -> None:
        self._path = path
        self._buffers = buffers
        self._threads = threads

    @asynccontextmanager
    async def open_disk(self, file: str) -> AsyncIterator[DiskStream]:
        plain_name(file)
        member = await to_thread.run_sync(_open_member, self._path, self._threads, file)
        try:
            async with open_stream(member, self._buffers, file) as stream:
                yield stream
        finally:
            with CancelScope(shield=True):
                await to_thread.run_sync(member.close)

    @asynccontextmanager
    async def open_image(self, file: str) -> AsyncIterator[ReadAnywhere]:
        plain_name(file)
        await to_thread.run_sync(_check_uncompressed, self._path, file)
        member = await to_thread.run_sync(_open_member, self._path, self._threads, file)
        try:
            yield ReadAnywhere(member)
        finally:
            with CancelScope(shield=True):
                await to_thread.run_sync(member.close)

    async def files(self) -> tuple[str, ...]:
        return await to_thread.run_sync(self._files)

    def _files(self) -> tuple[str, ...]:
        with ExitStack() as opened, reading_package(self._path):
            archive = _open_archive(self._path, self._threads, opened)
            return tuple(sorted(member.name for member in archive if member.isreg()))


class _Member:
    """A member of an open archive; the ``ImageReader`` over it."""

    def __init__(self, path: Path, archive: tarfile.TarFile, info: tarfile.TarInfo) -> None:
        self._path = path
        self.close = archive.close
        self._file = cast("BinaryIO", archive.fileobj)
        self._data_start = info.offset_data
        self.size_bytes = info.size
        self.data_extents = _extents_of(path, info)
        self._layout = Layout(self.data_extents)

    def read(self, wanted: Sequence[Wanted]) -> None:
        with reading_package(self._path):
            for offset, target in wanted:
                self._read(offset, target)

    def _read(self, offset: int, target: memoryview) -> None:
        self._file.seek(self._data_start + self._layout.position(offset))
        while target:
            count = self._file.readinto(target)  # type: ignore[attr-defined]
            if not count:
                raise EOFError("it ends too early")
            target = target[count:]


class _HeadReader:
    """An archive's decompressed bytes, of which a limited number can be read as headers."""

    def __init__(self, plain: BinaryIO) -> None:
        self._plain = plain
        self._read_bytes = 0

    def read(self, count: int) -> bytes:
        """Return some bytes of headers.

        Raises:
            tarfile.ReadError: there are more than in any real archive.
        """
        self._read_bytes += max(0, count)
        if not 0 <= count <= _MOST_HEADER_BYTES or self._read_bytes > _MOST_HEADERS_BYTES:
            raise tarfile.ReadError("its headers are too long")
        return self._plain.read(count)

    def readinto(self, target: memoryview) -> int:
        count: int = self._plain.readinto(target)  # type: ignore[attr-defined]
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._plain.seek(offset, whence)

    def tell(self) -> int:
        return self._plain.tell()

    def close(self) -> None:
        self._plain.close()


def _open_member(path: Path, threads: Executor, file: str) -> _Member:
    with ExitStack() as opened:
        archive = _open_archive(path, threads, opened)
        with reading_package(path):
            info = next((member for member in archive if member.name == file), None)
        if info is None:
            raise CorruptError(f"no {file} in package {path}")
        member = _Member(path, archive, info)
        member.close = opened.pop_all().close
        return member


def _check_uncompressed(path: Path, file: str) -> None:
    with reading_package(path), open_file(path) as archive:
        start = os.pread(archive.fileno(), len(_XZ), 0)
    if start.startswith((_GZIP, _BZIP2, _XZ)):
        raise only_in_order(file, path)


def _open_archive(path: Path, threads: Executor, opened: ExitStack) -> tarfile.TarFile:
    with reading_package(path):
        file = opened.enter_context(open_file(path))
        fd = file.fileno()
        split = split_of(fd)
        if split is None:
            plain = opened.enter_context(_plain(file))
        else:
            split_file = SplitFile(fd, split, threads, _MOST_AHEAD)
            plain = opened.enter_context(cast("BinaryIO", split_file))
        heads = cast("BinaryIO", _HeadReader(plain))
        return opened.enter_context(tarfile.open(fileobj=heads, mode="r:"))


def _plain(file: BinaryIO) -> BinaryIO:
    """Return the decompressed content of a file that is one long stream, or not compressed."""
    start = os.pread(file.fileno(), len(_XZ), 0)
    if start.startswith(_GZIP):
        return cast("BinaryIO", gzip_ng.GzipNGFile(fileobj=file))  # type: ignore[no-untyped-call]
    if start.startswith(_BZIP2):
        return cast("BinaryIO", bz2.BZ2File(file))
    return cast("BinaryIO", lzma.LZMAFile(file)) if start.startswith(_XZ) else file


def _extents_of(path: Path, info: tarfile.TarInfo) -> tuple[Extent, ...]:
    if not info.isreg() or info.size < 0:
        raise CorruptError(f"not a regular file: {info.name} in package {path}")
    with reading_package(path):
        check_length(info.size)
    sparse = cast("list[tuple[int, int]] | None", info.sparse)
    pairs = [(0, info.size)] if sparse is None else sparse
    extents = tuple(Extent(start, length) for start, length in pairs if length)
    end = 0
    for extent in extents:
        if extent.start < end or extent.length < 0 or extent.end > info.size:
            raise CorruptError(f"impossible sparse map of {info.name} in package {path}")
        end = extent.end
    return extents

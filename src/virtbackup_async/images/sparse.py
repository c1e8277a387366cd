"""A disk stream written into a new file that has the image's holes.

Used by the directory packager and by restore. Invariants: an existing file is never touched; the
file is private from its first moment; when the call returns the data is on disk, and when it
raises or is cancelled the file is gone again. Where file and image can share their blocks, nothing
is written.
"""

import os
from collections.abc import Callable
from pathlib import Path

from anyio import CancelScope, to_thread

from virtbackup_async.images.chunks import Chunk
from virtbackup_async.images.durable import FILE_MODE, storage_error
from virtbackup_async.images.reflink import clone
from virtbackup_async.images.stream import DiskStream
from virtbackup_async.images.write_behind import WriteBehind


async def write_sparse(stream: DiskStream, path: Path, on_progress: Callable[[int], None]) -> int:
    """Write ``stream`` to ``path``, which must not exist. The directory is not synced.

    Args:
        stream: fresh; its digest is known afterwards.
        path: where to.
        on_progress: called with the data bytes that have gone by.

    Returns:
        How many bytes of data are in the file, be they written or shared with the image.

    Raises:
        StorageError: the file exists, or the target is full or not writable.
    """
    fd = await to_thread.run_sync(_create, path, stream.size_bytes)
    try:
        file = _SparseFile(fd, path)
        is_cloned = await to_thread.run_sync(file.clone, stream)
        async for chunk in stream.chunks():
            if not is_cloned:
                await to_thread.run_sync(file.write, chunk)
            on_progress(stream.data_bytes)
        await to_thread.run_sync(file.finish)
    except BaseException:
        with CancelScope(shield=True):
            await to_thread.run_sync(_drop, fd, path)
        raise
    os.close(fd)
    return stream.data_bytes if is_cloned else file.written_bytes


class _SparseFile:
    """The blocking side, for worker threads."""

    def __init__(self, fd: int, path: Path) -> None:
        self.written_bytes = 0
        self._fd = fd
        self._path = path
        self._behind = WriteBehind(fd)

    def clone(self, stream: DiskStream) -> bool:
        """Share the blocks of the stream's image; the stream need only be read for its digest."""
        if stream.image_fd is None:
            return False
        try:
            if not clone(stream.image_fd, self._fd):
                return False
            os.ftruncate(self._fd, stream.size_bytes)  # it may have grown meanwhile
        except OSError as error:
            raise storage_error("write", self._path, error) from error
        return True

    def write(self, chunk: Chunk) -> None:
        try:
            for extent in chunk.ranges:
                start = extent.start - chunk.offset
                _write_exactly(self._fd, chunk.data[start : start + extent.length], extent.start)
                self.written_bytes += extent.length
                if self._behind.gather(extent.end, extent.length):
                    self._behind.push()
        except OSError as error:
            raise storage_error("write", self._path, error) from error

    def finish(self) -> None:
        try:
            self._behind.finish()
        except OSError as error:
            raise storage_error("sync", self._path, error) from error


def _create(path: Path, size_bytes: int) -> int:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
        try:
            os.ftruncate(fd, size_bytes)
        except BaseException:
            _drop(fd, path)
            raise
    except OSError as error:
        raise storage_error("create", path, error) from error
    return fd


def _write_exactly(fd: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(fd, data, offset)
        offset += count
        data = data[count:]


def _drop(fd: int, path: Path) -> None:
    os.close(fd)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error("remove", path, error) from error

"""A disk stream written into a new file that has the image's holes.

Used by the directory packager and by restore. Invariants: an existing file is never touched; the
file is private from its first moment; when the call returns the data is on disk, and when it
raises or is cancelled the file is gone again. Where file and image can share their blocks, nothing
is written. On a file system of a block device, data is written past the page cache: a copy of it
less, no wait at the end, and what guests have cached stays.
"""

import errno
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Final

from anyio import CancelScope, Semaphore, to_thread

from virtbackup_async.images.background import open_workers
from virtbackup_async.images.chunks import Chunk
from virtbackup_async.images.direct_io import is_aligned, lies_on_a_device, open_direct
from virtbackup_async.images.durable import FILE_MODE, storage_error
from virtbackup_async.images.reflink import clone
from virtbackup_async.images.stream import Batch, DiskStream
from virtbackup_async.images.write_behind import WriteBehind

# The device is not to wait for the next one to be brought.
_WRITES_AT_ONCE: Final = 2


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
    file = await to_thread.run_sync(_SparseFile, path, stream.size_bytes)
    try:
        is_cloned = await to_thread.run_sync(file.clone, stream)
        if is_cloned:
            async for _ in stream.chunks():
                on_progress(stream.data_bytes)
        else:
            await _write_all(stream, file, on_progress)
        await to_thread.run_sync(file.finish)
    except BaseException:
        with CancelScope(shield=True):
            await to_thread.run_sync(file.drop)
        raise
    file.close()
    return stream.data_bytes if is_cloned else file.written_bytes


async def _write_all(
    stream: DiskStream, file: "_SparseFile", on_progress: Callable[[int], None]
) -> None:
    gone_by = 0

    async def write(batch: Batch, end: int) -> None:
        nonlocal gone_by
        await to_thread.run_sync(file.write, batch.chunks)
        batch.give_back()
        gone_by = max(gone_by, end)
        on_progress(gone_by)

    async with open_workers(Semaphore(_WRITES_AT_ONCE)) as workers:
        while (batch := await stream.take()) is not None:
            await workers.start(partial(write, batch, stream.data_bytes), name="write a buffer")
        await workers.finish()


class _SparseFile:
    """The blocking side, for worker threads; several may write at once."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        self.written_bytes = 0
        self._lock = Lock()
        self._path = path
        self._fd = _create(path, size_bytes)
        self._direct_fd = open_direct(self._fd, os.O_WRONLY) if lies_on_a_device(self._fd) else None
        self._behind = WriteBehind(self._fd)

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

    def write(self, chunks: Iterable[Chunk]) -> None:
        written_bytes = 0
        try:
            for chunk in chunks:
                for extent in chunk.ranges:
                    start = extent.start - chunk.offset
                    self._write(chunk.data[start : start + extent.length], extent.start)
                    written_bytes += extent.length
        except OSError as error:
            raise storage_error("write", self._path, error) from error
        with self._lock:
            self.written_bytes += written_bytes

    def finish(self) -> None:
        try:
            self._behind.finish()
        except OSError as error:
            raise storage_error("sync", self._path, error) from error

    def close(self) -> None:
        os.close(self._fd)
        if self._direct_fd is not None:
            os.close(self._direct_fd)

    def drop(self) -> None:
        self.close()
        _remove(self._path)

    def _write(self, data: memoryview, offset: int) -> None:
        while data:
            count = self._write_some(data, offset)
            offset += count
            data = data[count:]

    def _write_some(self, data: memoryview, offset: int) -> int:
        if self._direct_fd is not None and is_aligned(offset, len(data)):
            try:
                return os.pwrite(self._direct_fd, data, offset)
            except OSError as error:
                if error.errno != errno.EINVAL:  # else it, or the memory, is of another alignment
                    raise
        with self._lock:
            count = os.pwrite(self._fd, data, offset)
            if self._behind.gather(offset + count, count):
                self._behind.push()
        return count


def _create(path: Path, size_bytes: int) -> int:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
        try:
            os.ftruncate(fd, size_bytes)
        except BaseException:
            os.close(fd)
            _remove(path)
            raise
    except OSError as error:
        raise storage_error("create", path, error) from error
    return fd


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error("remove", path, error) from error

"""A disk stream written into a new file that has the image's holes.

Used by the directory packager and by restore. Invariants: an existing file is never touched; the
file is private from its first moment; when the call returns the data is on disk, and when it
raises or is cancelled the file is gone again.
"""

import os
from collections.abc import Callable
from pathlib import Path

from anyio import CancelScope, to_thread

from virtbackup_async.images.durable import FILE_MODE, storage_error
from virtbackup_async.images.stream import Chunk, DiskStream


async def write_sparse(stream: DiskStream, path: Path, on_progress: Callable[[int], None]) -> int:
    """Write ``stream`` to ``path``, which must not exist. The directory is not synced.

    Args:
        stream: fresh; its digest is known afterwards.
        path: where to.
        on_progress: called with the data bytes that have gone by.

    Returns:
        How many bytes were written, holes not counted.

    Raises:
        StorageError: the file exists, or the target is full or not writable.
    """
    fd = await to_thread.run_sync(_create, path, stream.size_bytes)
    try:
        written_bytes = 0
        async for chunk in stream.chunks():
            written_bytes += await to_thread.run_sync(_write_ranges, fd, path, chunk)
            on_progress(stream.data_bytes)
        await to_thread.run_sync(_sync, fd, path)
    except BaseException:
        with CancelScope(shield=True):
            await to_thread.run_sync(_drop, fd, path)
        raise
    os.close(fd)
    return written_bytes


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


def _write_ranges(fd: int, path: Path, chunk: Chunk) -> int:
    try:
        for extent in chunk.ranges:
            start = extent.start - chunk.offset
            _write_exactly(fd, chunk.data[start : start + extent.length], extent.start)
    except OSError as error:
        raise storage_error("write", path, error) from error
    return sum(extent.length for extent in chunk.ranges)


def _write_exactly(fd: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(fd, data, offset)
        offset += count
        data = data[count:]


def _sync(fd: int, path: Path) -> None:
    try:
        os.fdatasync(fd)
    except OSError as error:
        raise storage_error("sync", path, error) from error


def _drop(fd: int, path: Path) -> None:
    os.close(fd)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error("remove", path, error) from error

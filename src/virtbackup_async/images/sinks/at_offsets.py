"""A disk stream's data, written into an open file at the offsets of the image, or at others.

::

    image      |  data A  |  hole  |data B| zeros |data C|
    a copy     |  data A  |        |data B|       |data C|         by ``sparse.py``
    archive    |head|  data A  |data B| zeros |data C|             by the tar packager

The gaps are not written: in a new file they are holes. On a file system on a block device, direct
I/O bypasses the page cache: that saves a copy and the wait at the end, and the guests' data stays
cached. On other file systems it would wait for a network, or the data would be copied anyway.
"""

import errno
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Final

from anyio import Semaphore, to_thread

from virtbackup_async.concurrency import open_workers
from virtbackup_async.files.direct_io import aligned_bytes, lies_on_a_device, open_direct
from virtbackup_async.files.refusals import close, storage_error
from virtbackup_async.files.write_behind import WriteBehind
from virtbackup_async.images.pieces import Piece
from virtbackup_async.images.stream import Batch, DiskStream

Place = Callable[[int], int]
"""Maps an offset in the image to one in the file; extents of the image stay contiguous."""

# So that the device need not wait for the next buffer.
_WRITES_AT_ONCE: Final = 2


async def write_data(
    stream: DiskStream, file: "DataFile", on_progress: Callable[[int], None], place: Place
) -> int:
    """Write a stream's data, which is durable after a sync of the file.

    Args:
        stream: a new one; its digest is known afterwards.
        file: the file.
        on_progress: called with the data bytes so far.
        place: maps offsets of the image to offsets in the file.

    Returns:
        The number of bytes written.

    Raises:
        StorageError: the target is full or failed.
    """
    written_bytes = gone_by = 0

    async def write(batch: Batch, end: int) -> None:
        nonlocal written_bytes, gone_by
        now_bytes = await to_thread.run_sync(file.write, batch.pieces, place)
        batch.give_back()
        written_bytes += now_bytes
        gone_by = max(gone_by, end)
        on_progress(gone_by)

    async with open_workers(Semaphore(_WRITES_AT_ONCE)) as workers:
        while (batch := await stream.take()) is not None:
            await workers.start(partial(write, batch, stream.data_bytes), name="write a buffer")
        await workers.finish()
    return written_bytes


class DataFile:
    """The blocking side, for worker threads; several can write at once.

    Args:
        fd: open for writing; the caller closes it.
        path: its name, for errors.
        behind: for the data that does go through the page cache.
    """

    def __init__(self, fd: int, path: Path, behind: WriteBehind) -> None:
        self._fd = fd
        self._path = path
        self._behind = behind
        self._lock = Lock()
        self._direct_fd = open_direct(fd, os.O_WRONLY) if lies_on_a_device(fd) else None

    def write(self, pieces: Iterable[Piece], place: Place) -> int:
        """Write the data of pieces; return the number of bytes.

        Raises:
            StorageError: the target is full or failed.
        """
        written_bytes = 0
        try:
            for piece in pieces:
                for extent in piece.ranges:
                    start = extent.start - piece.offset
                    data = piece.data[start : start + extent.length]
                    self._write(data, place(extent.start))
                    written_bytes += extent.length
        except OSError as error:
            raise storage_error("write", self._path, error) from error
        return written_bytes

    def close(self) -> None:
        """Close the descriptor for direct I/O."""
        if self._direct_fd is not None:
            close(self._direct_fd)

    def _write(self, data: memoryview, offset: int) -> None:
        while data:
            count = self._write_some(data, offset)
            offset += count
            data = data[count:]

    def _write_some(self, data: memoryview, offset: int) -> int:
        direct_bytes = aligned_bytes(offset, len(data))
        if self._direct_fd is not None and direct_bytes:
            try:
                return os.pwrite(self._direct_fd, data[:direct_bytes], offset)
            except OSError as error:
                if error.errno != errno.EINVAL:  # else it, or the memory, is of another alignment
                    raise
        with self._lock:
            count = os.pwrite(self._fd, data, offset)
            if self._behind.gather(offset + count, count):
                self._behind.push()
        return count

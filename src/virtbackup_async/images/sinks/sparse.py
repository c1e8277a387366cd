"""A disk stream written into a new file with the image's holes.

Used by the directory packager and by restore. Invariants: An existing file is never touched. The
file is private from its first moment. When the call returns, the data is on disk; when it raises or
is cancelled, the file has been removed. If file and image can share their blocks, as on XFS, the
file is a clone: it takes moments and no space, and has all holes.
"""

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from anyio import CancelScope, to_thread

from virtbackup_async.files.durable import file_at
from virtbackup_async.files.refusals import close, storage_error
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.files.write_behind import WriteBehind
from virtbackup_async.images.sinks.at_offsets import DataFile, write_data
from virtbackup_async.images.stream import DiskStream

# linux/fs.h: _IOW(0x94, 9, int); fcntl names it from Python 3.12 on.
_FICLONE: Final = 0x40049409
# Another file system (EXDEV), one without clones (EOPNOTSUPP, ENOTTY, ENOSYS), or two files that
# cannot share: btrfs returns EINVAL if only one of them has checksums.
_REFUSED: Final = frozenset(
    {errno.EXDEV, errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS, errno.EINVAL, errno.EPERM}
)


async def write_sparse(
    stream: DiskStream, path: Path | TargetPath, on_progress: Callable[[int], None]
) -> int:
    """Write ``stream`` to ``path``, which must not exist. The directory is not synced.

    Args:
        stream: a new one; its digest is known afterwards.
        path: the new file.
        on_progress: called with the data bytes so far.

    Returns:
        How many bytes of data are in the file, written or shared with the image.

    Raises:
        StorageError: the file exists, or the target is full or not writable.
    """
    file = await to_thread.run_sync(_SparseFile, path, stream.size_bytes)
    try:
        if await to_thread.run_sync(file.clone, stream):
            async for _ in stream.pieces():
                on_progress(stream.data_bytes)
            stored_bytes = stream.data_bytes
        else:
            stored_bytes = await write_data(stream, file.data, on_progress, _where_it_is)
        await to_thread.run_sync(file.finish)
    except BaseException:
        with CancelScope(shield=True):
            await to_thread.run_sync(file.drop)
        raise
    file.close()
    return stored_bytes


class _SparseFile:
    """The blocking side, for worker threads."""

    def __init__(self, path: Path | TargetPath, size_bytes: int) -> None:
        self._place = file_at(path) if isinstance(path, Path) else path
        self._path = self._place.path
        self._fd = _create(self._place, size_bytes)
        self._behind = WriteBehind(self._fd)
        self.data = DataFile(self._fd, self._path, self._behind)

    def clone(self, stream: DiskStream) -> bool:
        """Share the blocks of the stream's image; the stream need only be read for its digest."""
        if stream.image_fd is None:
            return False
        try:
            if not _clone(stream.image_fd, self._fd):
                return False
            os.ftruncate(self._fd, stream.size_bytes)  # the image can have grown in the meantime
        except OSError as error:
            raise storage_error("write", self._path, error) from error
        return True

    def finish(self) -> None:
        try:
            self._behind.finish()
        except OSError as error:
            raise storage_error("sync", self._path, error) from error

    def close(self) -> None:
        self.data.close()
        close(self._fd)

    def drop(self) -> None:
        self.close()
        self._place.drop()


def _where_it_is(offset: int) -> int:
    return offset


def _create(place: TargetPath, size_bytes: int) -> int:
    fd = place.create(os.O_WRONLY)
    try:
        os.ftruncate(fd, size_bytes)
    except BaseException as error:
        close(fd)
        place.drop()
        if isinstance(error, OSError):
            raise storage_error("create", place.path, error) from error
        raise
    return fd


def _clone(source_fd: int, target_fd: int) -> bool:
    """Make the empty file ``target_fd`` share all of ``source_fd``. Blocks.

    Returns:
        False if that is refused; the target has not changed.

    Raises:
        OSError: it failed half-way, because the file system is full or broken.
    """
    try:
        fcntl.ioctl(target_fd, _FICLONE, source_fd)
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        return False
    return True

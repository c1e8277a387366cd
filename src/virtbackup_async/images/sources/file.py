"""An image file, or a block device, as a disk stream.

A backup reads a domain's images with it; restore and verify read the files of directory packages.
Holes are found by SEEK_DATA and are not read.

Invariant: the page cache does not change. Bytes that are in it are taken from it, and the others
bypass it (``O_DIRECT``): gigabytes that are read once must not evict the guests' data.
"""

import errno
import os
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from anyio import to_thread

from virtbackup_async.errors import ImageError
from virtbackup_async.files.direct_io import aligned_bytes, open_direct
from virtbackup_async.files.page_cache import is_cached
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.digest import LengthError, check_length
from virtbackup_async.images.extents import scan_data
from virtbackup_async.images.pieces import Wanted
from virtbackup_async.images.stream import DiskStream, RateLimit, open_stream
from virtbackup_async.model.amounts import size


@asynccontextmanager
async def open_image_stream(
    path: Path | TargetPath,
    buffers: BufferPool,
    *,
    follow: bool = True,
    limits: Sequence[RateLimit] = (),
) -> AsyncIterator[DiskStream]:
    """Stream the image at ``path``.

    Args:
        path: a regular file or a block device; in a target, a regular file.
        buffers: the process's pool.
        follow: whether to follow a symbolic link: a domain's disk can be one, a file of a package
            must not.
        limits: of the speed.

    Raises:
        ImageError: it is missing, of another kind, not readable, or becomes shorter.
    """
    image = await to_thread.run_sync(open_image_file, path, follow)
    try:
        async with open_stream(
            image, buffers, path.name, image_fd=image.fd, limits=limits
        ) as stream:
            yield stream
    finally:
        image.close()


class ImageFile:
    """An open image file; the ``ImageReader`` over it."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.fd = fd
        self.size_bytes = os.lseek(fd, 0, os.SEEK_END)
        self.data_extents = scan_data(fd, self.size_bytes)
        self._direct_fd = open_direct(fd, os.O_RDONLY)
        by_hand = self._direct_fd is not None
        # Direct reads must not cause read-ahead into the cache when they take a page from it.
        advice = os.POSIX_FADV_RANDOM if by_hand else os.POSIX_FADV_SEQUENTIAL
        os.posix_fadvise(fd, 0, 0, advice)

    def read(self, wanted: Sequence[Wanted]) -> None:
        for offset, target in wanted:
            self._read(offset, target)

    def close(self) -> None:
        self._close_direct()
        os.close(self.fd)

    def _read(self, offset: int, target: memoryview) -> None:
        while target:
            try:
                count = self._read_some(offset, target)
            except OSError as error:
                message = f"cannot read {self.path} at byte {offset}: {error.strerror}"
                raise ImageError(message) from error
            if count == 0:
                where = f"{self.path} at {size(offset)} of {size(self.size_bytes)}"
                message = f"image ends early: {where}"
                raise ImageError(message, hint="Something shortened it while it was read.")
            offset += count
            target = target[count:]

    def _read_some(self, offset: int, target: memoryview) -> int:
        direct_bytes = aligned_bytes(offset, len(target))
        if (
            self._direct_fd is not None
            and direct_bytes
            and not is_cached(self.fd, offset, direct_bytes)
        ):
            try:
                return os.preadv(self._direct_fd, [target[:direct_bytes]], offset)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
            self._close_direct()  # it accepts the flag, but needs another alignment
        return os.preadv(self.fd, [target], offset)

    def _close_direct(self) -> None:
        direct, self._direct_fd = self._direct_fd, None
        if direct is not None:
            os.close(direct)


def open_image_file(place: Path | TargetPath, follow: bool = True) -> ImageFile:  # noqa: FBT001, FBT002 -- run_sync passes no keywords
    """Open an image, as for ``open_image_stream``; the caller closes it. Blocks.

    Raises:
        ImageError: it is missing, of another kind, or not readable.
    """
    path = place if isinstance(place, Path) else place.path
    try:
        # Without O_NONBLOCK a pipe in the place of an image would hang the thread for ever.
        nofollow = 0 if follow else os.O_NOFOLLOW
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | nofollow
        fd = os.open(path, flags) if isinstance(place, Path) else place.open_file()
        try:
            return _checked_image(path, fd)
        except BaseException:
            os.close(fd)
            raise
    except OSError as error:
        hint = "Check that it exists, and run as a user that may read it."
        raise ImageError(f"cannot open {path}: {error.strerror}", hint=hint) from error


def _checked_image(path: Path, fd: int) -> ImageFile:
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise ImageError(f"not a regular file or block device: {path}")
    image = ImageFile(path, fd)
    try:
        check_length(image.size_bytes)
    except LengthError as error:
        raise ImageError(error.message, path=path) from error
    return image

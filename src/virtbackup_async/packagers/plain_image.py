"""Random access to an image that is a file of its own: in a directory package, or unpacked."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from anyio import to_thread

from virtbackup_async.errors import CorruptError, ImageError, StorageError
from virtbackup_async.files.refusals import is_of_the_host
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.images.sources.file import ImageFile, open_image_file
from virtbackup_async.model.amounts import size
from virtbackup_async.model.extent import Extent
from virtbackup_async.packagers.interface import check_range
from virtbackup_async.packagers.package_files import reading_package


class PlainImage:
    """The ``RandomAccess`` to an image that is a file; the page cache is its cache.

    Nothing is checked: a package has no hash of parts of the file.
    """

    def __init__(self, image: ImageFile, digest: str | None) -> None:
        self.size_bytes = image.size_bytes
        self.digest = digest
        self._image = image

    async def extents(self) -> tuple[Extent, ...]:
        return self._image.data_extents

    async def read(self, offset: int, length: int) -> bytes:
        check_range(self, offset, length)
        return await to_thread.run_sync(self._read, offset, length)

    def _read(self, offset: int, length: int) -> bytes:
        path = self._image.path
        data = bytearray(length)
        done = 0
        with reading_package(path):
            while done < length:
                count = os.preadv(self._image.fd, [memoryview(data)[done:]], offset + done)
                if not count:
                    raise EOFError(f"it ends at {size(offset + done)} of {size(self.size_bytes)}")
                done += count
        return bytes(data)


@asynccontextmanager
async def open_plain_image(
    place: Path | TargetPath, digest: str | None = None
) -> AsyncIterator[PlainImage]:
    """Open an image that is a file.

    Args:
        place: the file.
        digest: the image's, if the caller has just read all of it.

    Raises:
        CorruptError: it is missing, or of another kind.
        StorageError: it cannot be opened now.
    """
    with image_errors():
        image = await to_thread.run_sync(open_image_file, place)
    try:
        yield PlainImage(image, digest)
    finally:
        image.close()


@contextmanager
def image_errors() -> Iterator[None]:
    """Turn errors of opening an image into those of a package.

    Raises:
        CorruptError: it is missing, or of another kind.
        StorageError: it cannot be opened now.
    """
    try:
        yield
    except ImageError as error:
        if is_of_the_host(error.__cause__):
            raise StorageError(error.message, hint=error.hint) from error
        raise CorruptError(error.message, hint=error.hint) from error

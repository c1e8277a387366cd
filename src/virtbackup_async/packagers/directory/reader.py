"""Reads directory packages: each image is a file of its own, with its holes.

Loaded by ``registry.py``.
"""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from anyio import to_thread

from virtbackup_async.errors import CorruptError, ImageError, StorageError
from virtbackup_async.files.refusals import is_of_the_host
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.sources.file import ImageFile, open_image_file, open_image_stream
from virtbackup_async.images.stream import DiskStream
from virtbackup_async.model.amounts import size
from virtbackup_async.model.extent import Extent
from virtbackup_async.model.packager import Location
from virtbackup_async.packagers.interface import check_range
from virtbackup_async.packagers.package_files import files_of, reading_package


@asynccontextmanager
async def open_reader(location: Location, buffers: BufferPool) -> AsyncIterator["DirectoryReader"]:
    """Open a package; see ``registry.open_reader``."""
    yield DirectoryReader(location, buffers)


class DirectoryReader:
    """The ``PackageReader`` of directory packages."""

    def __init__(self, location: Location, buffers: BufferPool) -> None:
        self._location = location
        self._buffers = buffers

    @asynccontextmanager
    async def open_disk(self, file: str) -> AsyncIterator[DiskStream]:
        with _image_errors():
            image = TargetPath.in_domain(self._location.path(file))
            async with open_image_stream(image, self._buffers) as stream:
                yield stream

    @asynccontextmanager
    async def open_image(self, file: str) -> AsyncIterator["PlainImage"]:
        place = TargetPath.in_domain(self._location.path(file))
        with _image_errors():
            image = await to_thread.run_sync(open_image_file, place)
        try:
            yield PlainImage(image)
        finally:
            image.close()

    async def files(self) -> tuple[str, ...]:
        return await files_of(self._location)


class PlainImage:
    """The ``RandomAccess`` to an image that is a file; the page cache is its cache.

    Nothing is checked: the package has no hash of parts of the file.
    """

    digest = None

    def __init__(self, image: ImageFile) -> None:
        self.size_bytes = image.size_bytes
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


@contextmanager
def _image_errors() -> Iterator[None]:
    try:
        yield
    except ImageError as error:
        if is_of_the_host(error.__cause__):
            raise StorageError(error.message, hint=error.hint) from error
        raise CorruptError(error.message, hint=error.hint) from error

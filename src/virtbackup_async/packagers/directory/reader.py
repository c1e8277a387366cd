"""Reading directory packages: each image is a file of its own, with its holes.

Loaded by ``registry.py``.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from virtbackup_async.errors import CorruptError, ImageError, StorageError
from virtbackup_async.files.refusals import is_of_the_host
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.sources.file import open_image_stream
from virtbackup_async.images.stream import DiskStream
from virtbackup_async.model.packager import Location
from virtbackup_async.packagers.package_files import files_of


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
        try:
            image = TargetPath.in_domain(self._location.path(file))
            async with open_image_stream(image, self._buffers) as stream:
                yield stream
        except ImageError as error:
            if is_of_the_host(error.__cause__):
                raise StorageError(error.message, hint=error.hint) from error
            raise CorruptError(error.message, hint=error.hint) from error

    async def files(self) -> tuple[str, ...]:
        return await files_of(self._location)

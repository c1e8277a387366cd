"""Reads directory packages: each image is a file of its own, with its holes.

Loaded by ``registry.py``.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.sources.file import open_image_stream
from virtbackup_async.images.stream import DiskStream
from virtbackup_async.model.packager import Location
from virtbackup_async.packagers.package_files import files_of
from virtbackup_async.packagers.plain_image import PlainImage, image_errors, open_plain_image


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
        with image_errors():
            image = TargetPath.in_domain(self._location.path(file))
            async with open_image_stream(image, self._buffers) as stream:
                yield stream

    @asynccontextmanager
    async def open_image(self, file: str) -> AsyncIterator["PlainImage"]:
        async with open_plain_image(TargetPath.in_domain(self._location.path(file))) as image:
            yield image

    async def files(self) -> tuple[str, ...]:
        return await files_of(self._location)

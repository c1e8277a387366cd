"""The directory packager: each disk is a file of its own, with its holes.

Opened by ``registry.py``. Nothing is transformed, so disks run side by side.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from anyio import to_thread

from virtbackup_async.errors import CorruptError, ImageError, StorageError
from virtbackup_async.files.refusals import is_of_the_host
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.sinks.sparse import write_sparse
from virtbackup_async.images.sources.file import open_image_stream
from virtbackup_async.images.stream import DiskStream
from virtbackup_async.packagers.damaged import file_names
from virtbackup_async.packagers.interface import Progress
from virtbackup_async.packagers.names import directory_path


class DirectoryWriter:
    """The ``PackageWriter`` of directory packages."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._written: list[Path] = []

    async def add_disk(self, file: str, stream: DiskStream, on_progress: Progress) -> int:
        path = directory_path(self._directory, file)
        stored_bytes = await write_sparse(stream, TargetPath.in_domain(path), on_progress)
        self._written.append(path)
        return stored_bytes

    async def finish(self) -> None:
        await to_thread.run_sync(TargetPath.of(self._directory, 1).sync_names)

    async def discard(self) -> None:
        while self._written:
            await to_thread.run_sync(TargetPath.in_domain(self._written[-1]).remove)
            self._written.pop()


class DirectoryReader:
    """The ``PackageReader`` of directory packages."""

    def __init__(self, directory: Path, name: str, buffers: BufferPool) -> None:
        self._directory = directory
        self._name = name
        self._buffers = buffers

    @asynccontextmanager
    async def open_disk(self, file: str) -> AsyncIterator[DiskStream]:
        path = directory_path(self._directory, file)
        try:
            image = TargetPath.in_domain(path)
            async with open_image_stream(image, self._buffers) as stream:
                yield stream
        except ImageError as error:
            if is_of_the_host(error.__cause__):
                raise StorageError(error.message, hint=error.hint) from error
            raise CorruptError(error.message, hint=error.hint) from error

    async def files(self) -> tuple[str, ...]:
        return await to_thread.run_sync(self._files)

    def _files(self) -> tuple[str, ...]:
        names = file_names(self._directory)
        return tuple(sorted(name for name in names if name.startswith(f"{self._name}_")))

"""Writes directory packages: each image is a file of its own, with its holes.

Loaded by ``registry.py``. Nothing is transformed, so disks are written in parallel.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from anyio import to_thread

from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.images.sinks.sparse import write_sparse
from virtbackup_async.images.stream import DiskStream
from virtbackup_async.model.packager import Location
from virtbackup_async.packagers.codecs.cpu_shares import CpuShares
from virtbackup_async.packagers.interface import Progress


@asynccontextmanager
async def open_writer(location: Location, _cpu: CpuShares) -> AsyncIterator["DirectoryWriter"]:
    """Start a package; see ``registry.open_writer``."""
    yield DirectoryWriter(location)


class DirectoryWriter:
    """The ``PackageWriter`` of directory packages."""

    def __init__(self, location: Location) -> None:
        self._location = location
        self._written: list[Path] = []

    async def add_disk(self, file: str, stream: DiskStream, on_progress: Progress) -> int:
        path = self._location.path(file)
        stored_bytes = await write_sparse(stream, TargetPath.in_domain(path), on_progress)
        self._written.append(path)
        return stored_bytes

    async def finish(self) -> None:
        await to_thread.run_sync(TargetPath.of(self._location.directory, 1).sync_names)

    async def discard(self) -> None:
        while self._written:
            await to_thread.run_sync(TargetPath.in_domain(self._written[-1]).remove)
            self._written.pop()

"""A new file that is written from front to back: the output of the tar and zstd packagers.

Invariants: An existing file is never touched. The file is private from its first moment. A
cancellation waits for the end of a write, because the data can be in a buffer that is reused.
"""

import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, cast

import aiofiles
from aiofiles.threadpool.binary import AsyncBufferedIOBase
from anyio import CancelScope, to_thread

from virtbackup_async.files.refusals import storage_error
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.files.write_behind import WriteBehind
from virtbackup_async.images.sinks.at_offsets import DataFile, Place, write_data
from virtbackup_async.images.stream import DiskStream

Data = bytes | memoryview

# Joins headers and padding. Longer data bypasses the buffer, and is not copied.
_BUFFER_BYTES: Final = 64 * 1024
_ZEROS: Final = memoryview(bytes(1024 * 1024))


def zero_pieces(length_bytes: int) -> Iterator[memoryview]:
    """Yield ``length_bytes`` of zeros, in parts that share their memory."""
    while length_bytes > 0:
        part = _ZEROS[:length_bytes]
        length_bytes -= len(part)
        yield part


@asynccontextmanager
async def open_output(path: Path) -> AsyncIterator["OutputFile"]:
    """Create a file of a package, and remove it again unless ``finish`` was called.

    Raises:
        StorageError: it exists, or the target is full or not writable.
    """
    with CancelScope(shield=True):
        output = await _create(TargetPath.in_domain(path))
    try:
        yield output
    finally:
        with CancelScope(shield=True):
            await output.aclose()


class OutputFile:
    """Call ``write`` any number of times, then ``finish``."""

    def __init__(self, place: TargetPath, file: AsyncBufferedIOBase, created_s: int) -> None:
        self.place = place
        self.path = place.path
        self.length_bytes = 0
        self.created_s = created_s
        self._file = file
        self._behind = WriteBehind(file.fileno())
        self._is_finished = False
        self._is_discarded = False

    async def write(self, pieces: Iterable[Data]) -> None:
        """Append the pieces in order."""
        pieces = list(pieces)
        try:
            with CancelScope(shield=True):
                await self._file.writelines(pieces)
        except OSError as error:
            raise storage_error("write", self.path, error) from error
        written_bytes = sum(map(len, pieces))
        self.length_bytes += written_bytes
        if self._behind.gather(self.length_bytes, written_bytes):
            await self.flush()
            await self._to_disk("write", self._behind.push)

    async def write_data(
        self,
        stream: DiskStream,
        place: Place,
        length_bytes: int,
        on_progress: Callable[[int], None],
    ) -> None:
        """Append the data of a disk.

        Args:
            stream: a new one.
            place: maps offsets in the image to offsets after the bytes that are written already.
            length_bytes: the length of the data with all zeros that the stream leaves out.
            on_progress: called with the data bytes so far.
        """
        await self.flush()
        start = self.length_bytes
        file = DataFile(self._file.fileno(), self.path, self._behind)
        try:
            await write_data(stream, file, on_progress, lambda offset: start + place(offset))
        finally:
            file.close()
        try:
            with CancelScope(shield=True):
                await self._file.truncate(start + length_bytes)
                await self._file.seek(start + length_bytes)
        except OSError as error:
            raise storage_error("write", self.path, error) from error
        self.length_bytes += length_bytes

    async def flush(self) -> None:
        """Pass everything to the operating system."""
        try:
            with CancelScope(shield=True):
                await self._file.flush()
        except OSError as error:
            raise storage_error("write", self.path, error) from error

    async def finish(self) -> None:
        """Make the content durable; a sync of the directory makes the name durable."""
        await self.flush()
        await self._to_disk("sync", self._behind.finish)
        self._is_finished = True

    async def discard(self) -> None:
        """Remove the file, finished or not; once."""
        if not self._is_discarded:
            await to_thread.run_sync(self.place.remove)
            self._is_discarded = True

    async def aclose(self) -> None:
        """Close the file, and remove it if it is not finished."""
        try:
            if not self._is_finished:
                await self.discard()
        finally:
            await self._close()

    async def _to_disk(self, doing: str, step: Callable[[], None]) -> None:
        try:
            await to_thread.run_sync(step)
        except OSError as error:
            raise storage_error(doing, self.path, error) from error

    async def _close(self) -> None:
        try:
            await self._file.close()
        except OSError as error:
            # Closing flushes: on a full target it fails as the previous write did.
            if self._is_finished:
                raise storage_error("close", self.path, error) from error


async def _create(place: TargetPath) -> "OutputFile":
    try:
        opened = await aiofiles.open(
            place.path, "xb", _BUFFER_BYTES, opener=lambda _path, _flags: place.claim(os.O_WRONLY)
        )
    except OSError as error:
        raise storage_error("create", place.path, error) from error
    file = cast("AsyncBufferedIOBase", opened)  # the type stubs know few sizes of buffers
    try:
        return OutputFile(place, file, int(os.fstat(file.fileno()).st_mtime))
    except OSError as error:
        await file.close()
        await to_thread.run_sync(place.drop)
        raise storage_error("create", place.path, error) from error

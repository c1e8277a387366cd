"""A disk stream written from front to back: as raw, or as qcow2.

::

    stream   |     |  piece  |         |piece|             with ranges of data, ascending
    pieces   |head|table|  of the disk  |table|  of the disk  |
    file      head table  000 data 000   table  data 000

``export`` calls it for files and pipes, ``restore`` for qcow2 files. Invariants: holes stay holes
if the file can have them; a slow reader of a pipe does not delay a cancellation.
"""

import fcntl
import os
import select
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from anyio import from_thread, to_thread

from virtbackup_async.errors import StorageError
from virtbackup_async.files.durable import file_at
from virtbackup_async.files.refusals import close, storage_error
from virtbackup_async.files.write_behind import WriteBehind
from virtbackup_async.images.pieces import Piece
from virtbackup_async.images.stream import DiskStream
from virtbackup_async.model.extent import Extent
from virtbackup_async.model.qcow2_options import Qcow2Options
from virtbackup_async.qemu.qcow2 import Qcow2Layout

_ZEROS: Final = memoryview(bytes(1024 * 1024))
# The most that an unprivileged process can request, on most systems.
_PIPE_BYTES: Final = 1024 * 1024
_POLL_MS: Final = 100
_NOWHERE: Final = Extent(0, 0)
_USUAL: Final = Qcow2Options()


class SequentialFile:
    """An open file or pipe, written in order. Its calls block: one worker thread at a time."""

    def __init__(self, fd: int, path: Path) -> None:
        self._fd = fd
        self._path = path
        self._is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        self._position = os.lseek(fd, 0, os.SEEK_CUR) if self._is_file else 0
        self._behind = WriteBehind(fd) if self._is_file else None
        self._can_skip = self._is_file and self._ends_here() and not self._appends()
        self._room = select.poll()
        self._room.register(fd, select.POLLOUT)
        # A blocking pipe that is writable accepts at least so much.
        self._at_once = len(_ZEROS) if self._is_file or self._is_non_blocking() else select.PIPE_BUF

    def write(self, data: memoryview) -> None:
        """Write all of ``data``.

        Raises:
            StorageError: the pipe has no reader any more, or the target is full or failed.
        """
        while data:
            data = data[self._write_some(data[: self._at_once]) :]

    def zeros(self, length_bytes: int) -> None:
        """Write zeros, or leave a hole."""
        if self._can_skip:
            self._position += length_bytes
            os.lseek(self._fd, self._position, os.SEEK_SET)
            return
        while length_bytes:
            piece = _ZEROS[:length_bytes]
            self.write(piece)
            length_bytes -= len(piece)

    def finish(self) -> None:
        """Set a file's length, and make it durable."""
        if self._behind is None:
            return
        try:
            if self._can_skip:
                os.ftruncate(self._fd, self._position)
            self._behind.finish()
        except OSError as error:
            raise storage_error("write", self._path, error) from error

    def _write_some(self, data: memoryview) -> int:
        try:
            while True:
                self._wait_for_room()
                with suppress(BlockingIOError):
                    count = os.write(self._fd, data)
                    break
            self._position += count
            if self._behind is not None and self._behind.gather(self._position, count):
                self._behind.push()
        except BrokenPipeError as error:
            raise StorageError(f"nobody reads {self._path} any more") from error
        except OSError as error:
            raise storage_error("write", self._path, error) from error
        return count

    def _wait_for_room(self) -> None:
        while not self._is_file and not self._room.poll(_POLL_MS):
            from_thread.check_cancelled()

    def _ends_here(self) -> bool:
        return os.fstat(self._fd).st_size <= self._position

    def _appends(self) -> bool:
        return bool(fcntl.fcntl(self._fd, fcntl.F_GETFL) & os.O_APPEND)

    def _is_non_blocking(self) -> bool:
        return not os.get_blocking(self._fd)


@contextmanager
def open_stdout() -> Iterator[SequentialFile]:
    """Write to standard output. Blocks for moments."""
    fd = _own_stdout()
    try:
        yield SequentialFile(fd, Path("standard output"))
    finally:
        os.close(fd)


@contextmanager
def create_sequential_file(path: Path) -> Iterator[SequentialFile]:
    """Create a private file, and remove it again if the block fails. Blocks for moments.

    Raises:
        StorageError: it exists, or its directory is missing, full or not writable.
    """
    fd = file_at(path).create(os.O_WRONLY)
    try:
        yield SequentialFile(fd, path)
    except BaseException:
        close(fd)
        with suppress(OSError):
            path.unlink(missing_ok=True)
        raise
    try:
        os.close(fd)
    except OSError as error:  # some file systems write only now
        with suppress(OSError):
            path.unlink(missing_ok=True)
        raise storage_error("write", path, error) from error


def _own_stdout() -> int:
    """Return a new descriptor of standard output; for a pipe a non-blocking one, if possible.

    The original is not changed, because other processes share it.
    """
    stdout = 1
    if stat.S_ISFIFO(os.fstat(stdout).st_mode):
        with suppress(OSError):
            fd = os.open(f"/proc/self/fd/{stdout}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with suppress(OSError):
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            return fd
    return os.dup(stdout)


async def write_raw(
    stream: DiskStream, file: SequentialFile, on_progress: Callable[[int], None]
) -> None:
    """Write the image as it is; the stream's digest is known afterwards.

    Raises:
        StorageError: the pipe has no reader any more, or the target is full or failed.
    """
    await _write(stream, file, [Extent(0, stream.size_bytes)], on_progress)


async def write_qcow2(
    stream: DiskStream,
    file: SequentialFile,
    on_progress: Callable[[int], None],
    options: Qcow2Options = _USUAL,
) -> None:
    """Write a stream of a raw image as qcow2.

    If its extents are not known, all clusters are allocated, and zeros are holes of the file.

    Raises:
        StorageError: the pipe has no reader any more, or the target is full or failed.
    """
    data = stream.data_extents
    if data is None:
        data = (Extent(0, stream.size_bytes),) if stream.size_bytes else ()
    layout = Qcow2Layout(stream.size_bytes, data, options)
    await _write(stream, file, layout.pieces(), on_progress)


async def _write(
    stream: DiskStream,
    file: SequentialFile,
    pieces: Iterable[bytes | Extent],
    on_progress: Callable[[int], None],
) -> None:
    interleaved = _Interleaved(file, iter(pieces))
    async for piece in stream.pieces():
        await to_thread.run_sync(interleaved.add, piece)
        on_progress(stream.data_bytes)
    await to_thread.run_sync(interleaved.finish)


class _Interleaved:
    """The blocking side: writes data between qcow2's structures, and zeros where there is none."""

    def __init__(self, file: SequentialFile, pieces: Iterator[bytes | Extent]) -> None:
        self._file = file
        self._pieces = pieces
        # The rest of the current part of the disk.
        self._part: Extent | None = _NOWHERE

    def add(self, piece: Piece) -> None:
        for extent in piece.ranges:
            start = extent.start - piece.offset
            self._put(extent.start, piece.data[start : start + extent.length])

    def finish(self) -> None:
        while self._part is not None:
            self._file.zeros(self._part.length)
            self._next_part()
        self._file.finish()

    def _put(self, offset: int, data: memoryview) -> None:
        end = offset + len(data)
        while self._part is not None and self._part.start < end:
            part = self._part
            # Zeros up to the data, then as much of the data as is in this part.
            start = min(max(part.start, offset), part.end)
            stop = min(part.end, end)
            self._file.zeros(start - part.start)
            if start < stop:
                self._file.write(data[start - offset : stop - offset])
            self._part = Extent(stop, part.end - stop)
            if stop == part.end:
                self._next_part()

    def _next_part(self) -> None:
        for piece in self._pieces:
            if isinstance(piece, Extent):
                self._part = piece
                return
            self._file.write(memoryview(piece))
        self._part = None

"""A file or a pipe that is written from front to back: the sink of ``export``.

Invariants: holes stay holes if the file can have them; a slow reader of a pipe does not delay a
cancellation.
"""

import fcntl
import os
import select
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from anyio import from_thread

from virtbackup_async.errors import StorageError
from virtbackup_async.files.closing import close
from virtbackup_async.files.durable import file_at
from virtbackup_async.files.refusals import storage_error
from virtbackup_async.files.write_behind import WriteBehind

_ZEROS: Final = memoryview(bytes(1024 * 1024))
# The most that an unprivileged process can request, on most systems.
_PIPE_BYTES: Final = 1024 * 1024
_POLL_MS: Final = 100


class Outlet:
    """An open file or pipe. Its calls block, and are for one worker thread at a time."""

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
def open_stdout() -> Iterator[Outlet]:
    """Write to standard output. Blocks for moments."""
    fd = _own_stdout()
    try:
        yield Outlet(fd, Path("standard output"))
    finally:
        os.close(fd)


@contextmanager
def create_outlet(path: Path) -> Iterator[Outlet]:
    """Create a private file, and remove it again if the block fails. Blocks for moments.

    Raises:
        StorageError: it exists, or its directory is missing, full or not writable.
    """
    fd = file_at(path).create(os.O_WRONLY)
    try:
        yield Outlet(fd, path)
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

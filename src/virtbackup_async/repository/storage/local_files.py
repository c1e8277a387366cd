"""Open files of a target in a directory: read, written, and held as leases."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from virtbackup_async.errors import CorruptError, StorageError
from virtbackup_async.files.held import Held
from virtbackup_async.files.page_cache import is_cached
from virtbackup_async.files.reached_path import read_file_in
from virtbackup_async.files.refusals import close, storage_error
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.files.write_behind import WriteBehind

_PAGE_BYTES: Final = 4096


class LocalFile:
    """A ``StoredFile``: a descriptor."""

    def __init__(self, where: str, fd: int) -> None:
        self.where = where
        self.size_bytes = os.fstat(fd).st_size
        self._fd = fd

    def read(self, length_bytes: int, offset: int) -> bytes:
        data = os.pread(self._fd, length_bytes, offset)
        while 0 < len(data) < length_bytes:
            more = os.pread(self._fd, length_bytes - len(data), offset + len(data))
            if not more:
                break
            data += more
        if len(data) < length_bytes:
            raise CorruptError("it is cut off")
        return data

    def read_up_to(self, length_bytes: int, offset: int) -> bytes:
        return os.pread(self._fd, length_bytes, offset)

    def read_once(self, length_bytes: int, offset: int) -> bytes:
        first = offset // _PAGE_BYTES * _PAGE_BYTES
        length = offset + length_bytes - first
        was_cached = is_cached(self._fd, first, length)
        data = self.read(length_bytes, offset)
        if not was_cached:
            os.posix_fadvise(self._fd, first, length, os.POSIX_FADV_DONTNEED)
        return data

    def close(self) -> None:
        close(self._fd)


class LocalDirectory:
    """An ``OpenDirectory``: a descriptor."""

    def __init__(self, place: TargetPath, fd: int) -> None:
        self._path = place.path
        self._fd = fd

    def names(self) -> frozenset[str]:
        with os.scandir(self._fd) as entries:
            return frozenset(entry.name for entry in entries)

    def read(self, name: str, max_bytes: int) -> bytes:
        return read_file_in(self._fd, name, self._path, max_bytes)

    def read_each(
        self, names: Iterable[str], max_bytes: int
    ) -> Iterator[tuple[str, bytes | OSError]]:
        for name in names:
            try:
                yield name, self.read(name, max_bytes)
            except OSError as error:
                yield name, error

    def close(self) -> None:
        close(self._fd)


class LocalHeld:
    """A ``HeldDirectory``: a descriptor that is locked (``flock``)."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def close(self) -> None:
        close(self._fd)


class LocalGrowingFile:
    """A ``GrowingFile``: it has its name from the start, and goes to the disk as it grows."""

    def __init__(self, place: TargetPath) -> None:
        self._place = place
        self._length_bytes = 0
        self._fd: int | None = place.create()
        self._behind = WriteBehind(self._fd)

    def append(self, data: bytes | bytearray) -> None:
        if self._fd is None:
            raise StorageError(f"{self._place} was closed")
        write_all(self._fd, data, self._place.path)
        self._length_bytes += len(data)
        if self._behind.gather(self._length_bytes, len(data)):
            with syncing(self._place.path):
                self._behind.push()

    def finish_soon(self) -> None:
        self.finish()

    def finish(self) -> None:
        if self._fd is None:
            return
        try:
            with syncing(self._place.path):
                self._behind.finish()
        finally:
            self._close()
        # The directory might be new as well, and its maker dead before it was durable.
        self._place.parent.sync_names()
        self._place.parent.parent.sync_names()

    def discard(self) -> None:
        self._close()
        self._place.drop()

    def _close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            close(fd)


class LocalHiddenFile:
    """A ``HiddenFile``: it has a temporary name in the directory of its final one."""

    def __init__(self, place: TargetPath) -> None:
        self._place = place
        self._part = place.parent.temporary()
        self._fd: int | None = self._part.create()

    def append(self, data: bytes | bytearray) -> None:
        if self._fd is None:
            raise StorageError(f"{self._part} was closed")
        write_all(self._fd, data, self._part.path)

    def finish(self) -> None:
        if self._fd is not None:
            sync(self._fd, self._part.path)
            self._close()

    def publish(self, on_named: Callable[[], None]) -> None:
        place = self._place
        try:
            self._part.rename(place.name)
        except OSError as error:
            # A server might have renamed the file although it reports an error.
            if not _is_surely_free(place):
                on_named()
            raise storage_error("write", place.path, error) from error
        on_named()
        place.parent.sync_names()

    def publish_exclusively(self) -> None:
        self._part.rename_exclusively(self._place.name)

    def discard(self) -> None:
        self._close()
        # A file that stays has a temporary name: `clean` finds it.
        with suppress(OSError):
            self._part.unlink()

    def _close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            close(fd)


class LocalLease:
    """A ``LeaseFile``: locked (``flock``) as long as it is held."""

    def __init__(self, place: TargetPath, fd: int, held: Held) -> None:
        self.where = str(place)
        self._place = place
        self._fd = fd
        self._held = held

    def refresh(self) -> None:
        with suppress(OSError):
            os.utime(self._fd)

    def is_held(self) -> bool:
        self._held.check()
        try:
            return os.path.samestat(self._place.status(), os.fstat(self._fd))
        except OSError:
            return False

    def remove(self) -> None:
        with suppress(OSError, StorageError):
            if self.is_held():
                self._place.unlink()
        self._held.close()
        close(self._fd)


def _is_surely_free(place: TargetPath) -> bool:
    try:
        return not place.exists()
    except OSError:
        return False


def write_all(fd: int, data: bytes | bytearray, path: Path) -> None:
    """Append all of ``data``, or raise StorageError."""
    try:
        with memoryview(data) as rest:
            written = 0
            while written < len(rest):
                written += os.write(fd, rest[written:])
    except OSError as error:
        raise storage_error("write", path, error) from error


def sync(fd: int, path: Path) -> None:
    """Make the content of a file durable, or raise StorageError."""
    with syncing(path):
        os.fdatasync(fd)


@contextmanager
def syncing(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a StorageError."""
    try:
        yield
    except OSError as error:
        raise storage_error("sync", path, error) from error

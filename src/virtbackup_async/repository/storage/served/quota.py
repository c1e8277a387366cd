"""A limit for the space that the files of a target may take.

The files are measured before the first write of a session, and again after each ``_STEP`` bytes
that it wrote. In between only its own bytes count, so sessions that write at the same time may
exceed the limit by as much each. A file counts as whole blocks: thousands of empty ones fill a
target, too. What exceeds the limit is refused as by a full file system.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Final, Generic, TypeVar

from virtbackup_async.errors import StorageFullError
from virtbackup_async.files.refusals import close, storage_error
from virtbackup_async.model.amounts import size
from virtbackup_async.repository.storage.interface import (
    GrowingFile,
    HiddenFile,
    LeaseFile,
    Storage,
)
from virtbackup_async.repository.storage.served.wrapped import WrappedStorage

F = TypeVar("F", GrowingFile, HiddenFile)

BLOCK_BYTES: Final = 4096
_STEP: Final = 256 << 20
_AGAIN_S: Final = 60.0


class QuotaStorage(WrappedStorage):
    """A storage with a limit; removing and overwriting are never refused."""

    def __init__(
        self,
        inner: Storage,
        limit_bytes: int,
        measure: Callable[[], int],
        now: Callable[[], float] = monotonic,
    ) -> None:
        super().__init__(inner)
        self._limit_bytes = limit_bytes
        self._measure = measure
        self._now = now
        self._used_bytes = 0
        self._since_bytes = 0
        self._measured_s: float | None = None
        self._was_freed = False
        self._turn = Lock()

    def charge(self, length_bytes: int, name: str) -> None:
        """Count bytes before they are written.

        Raises:
            StorageFullError: they exceed the limit.
        """
        with self._turn:
            if self._measured_s is None or self._since_bytes > _STEP:
                self._measure_now()
            if self._used_bytes + length_bytes > self._limit_bytes and self._is_stale():
                self._measure_now()
            if self._used_bytes + length_bytes > self._limit_bytes:
                raise StorageFullError(
                    f"no space left: cannot write {self.where(name)}: the quota of "
                    f"{size(self._limit_bytes)} is used up",
                    hint="Remove old backups on the keeper's machine, or raise the quota.",
                )
            self._used_bytes += length_bytes
            self._since_bytes += length_bytes

    def note_freed(self) -> None:
        """Measure again before the next refusal."""
        with self._turn:
            self._was_freed = True

    def make_directory(self, name: str) -> None:
        if not self.inner.exists(name):
            self.charge(BLOCK_BYTES, name)
        super().make_directory(name)

    def replace(self, name: str, data: bytes, *, keep_owner: bool = False) -> None:
        self.charge(_blocks(len(data)), name)
        super().replace(name, data, keep_owner=keep_owner)
        self.note_freed()

    def put_new(self, name: str, data: bytes) -> None:
        self.charge(_blocks(len(data)), name)
        super().put_new(name, data)

    def create(self, name: str) -> GrowingFile:
        self.charge(BLOCK_BYTES, name)
        return _Growing(self.inner.create(name), self, name)

    def create_hidden(self, name: str) -> HiddenFile:
        self.charge(BLOCK_BYTES, name)
        return _Hidden(self.inner.create_hidden(name), self, name)

    def remove(self, name: str) -> None:
        super().remove(name)
        self.note_freed()

    def take_lease(self, name: str, content: bytes, directories: Sequence[str]) -> LeaseFile:
        self.charge(_blocks(len(content)), name)
        return super().take_lease(name, content, directories)

    def free_bytes(self) -> int:
        with self._turn:
            if self._measured_s is None or self._is_stale():
                self._measure_now()
            left = max(self._limit_bytes - self._used_bytes, 0)
        return min(left, super().free_bytes())

    def release_reserve(self) -> bool:
        found = super().release_reserve()
        self.note_freed()
        return found

    def _is_stale(self) -> bool:
        # Not at each refusal: a client could keep the disk busy with nothing else.
        return (
            self._was_freed or self._measured_s is None or self._now() - self._measured_s > _AGAIN_S
        )

    def _measure_now(self) -> None:
        self._used_bytes = self._measure()
        self._since_bytes = 0
        self._was_freed = False
        self._measured_s = self._now()


class _Charged(Generic[F]):
    """A new file whose bytes are charged as they come."""

    def __init__(self, file: F, quota: QuotaStorage, name: str) -> None:
        self._file: F = file
        self._quota = quota
        self._name = name

    def append(self, data: bytes | bytearray) -> None:
        self._quota.charge(len(data), self._name)
        self._file.append(data)

    def finish(self) -> None:
        self._file.finish()

    def discard(self) -> None:
        self._file.discard()
        self._quota.note_freed()


class _Growing(_Charged[GrowingFile]):
    def finish_soon(self) -> None:
        self._file.finish_soon()


class _Hidden(_Charged[HiddenFile]):
    def publish(self, on_named: Callable[[], None]) -> None:
        self._file.publish(on_named)

    def publish_exclusively(self) -> None:
        self._file.publish_exclusively()


def measure_directory(directory: Path) -> int:
    """Return how many bytes all that is in a directory takes; links are not followed. Blocks.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise storage_error("read", directory, error) from error
    try:
        return _measure(fd)
    except OSError as error:
        raise storage_error("read", directory, error) from error
    finally:
        close(fd)


def _measure(directory: int) -> int:
    total = 0
    with os.scandir(directory) as entries:
        for entry in entries:
            total += BLOCK_BYTES
            with suppress(FileNotFoundError):  # removed this moment
                if entry.is_dir(follow_symlinks=False):
                    total += _measure_below(directory, entry.name)
                elif entry.is_file(follow_symlinks=False):
                    total += _blocks(entry.stat(follow_symlinks=False).st_size) - BLOCK_BYTES
    return total


def _measure_below(directory: int, name: str) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, dir_fd=directory)
    try:
        return _measure(fd)
    finally:
        close(fd)


def _blocks(length_bytes: int) -> int:
    """Return a file's length as whole blocks; an empty file takes one, for its name."""
    return max(-(-length_bytes // BLOCK_BYTES), 1) * BLOCK_BYTES

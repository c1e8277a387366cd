"""The file of an overlay: what clients wrote to a disk that is served. All methods block.

::

    head       4 KiB: a line with magic and version, then JSON: the backup and the disk below
    states     a byte for each block of 64 KiB: 0 as below, 1 in this file, 2 zeros
    data       from a whole MiB on: the blocks at their own offsets; a hole where there is none

The states in memory are ahead of those in the file. ``flush`` syncs the data first, then writes the
changed states, and syncs them. So a state in the file never stands for data that a power cut could
take back. What was not flushed may be lost, as in the cache of a disk. After a flush that failed,
nobody knows which data is on the disk: the overlay takes no more writes.

docs/reference/formats.md describes the file.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from virtbackup_async.errors import ConfigError, CorruptError, LockHeldError
from virtbackup_async.files.refusals import close, storage_error
from virtbackup_async.files.target_path import TargetPath

BLOCK_BYTES: Final = 64 * 1024
BELOW, DATA, ZEROS = 0, 1, 2
_MAGIC: Final = b"virtbackup-overlay 1\n"
_HEAD_BYTES: Final = 4096
_PAGE_BYTES: Final = 4096
_DATA_ALIGNED: Final = 1 << 20
_MODE: Final = 0o600


class Below(Struct, frozen=True):
    """What an overlay is above; the JSON in its head.

    Attributes:
        domain, backup, disk: the disk that is served.
        size_bytes: its length.
        digests: those of its images, from the top one down; empty if they are not recorded.
    """

    domain: str
    backup: str
    disk: str
    size_bytes: int
    digests: tuple[str, ...] = ()


class OverlayFile:
    """An open overlay, locked; ``close`` it. Not for two threads at once, except ``read``."""

    def __init__(self, path: Path, below: Below) -> None:
        """Open an overlay, or make it, durably, if it is missing.

        Raises:
            ConfigError: the file is no overlay, or that of another disk.
            CorruptError: it is cut off.
            LockHeldError: another process uses it.
            StorageError: it cannot be made or opened.
        """
        self._path = path
        self._blocks = -(-below.size_bytes // BLOCK_BYTES)
        states_end = _HEAD_BYTES + self._blocks
        self._data_start = -(-states_end // _DATA_ALIGNED) * _DATA_ALIGNED
        self._changed: set[int] = set()
        self._has_failed = False
        try:
            self._fd = _open(path)
        except OSError as error:
            raise storage_error("open", path, error) from error
        try:
            self.states = self._begin(below)
        except OSError as error:
            close(self._fd)
            raise storage_error("use", path, error) from error
        except BaseException:
            close(self._fd)
            raise

    def runs(self, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
        """Yield the parts of a range by their state: state, offset, length."""
        end = offset + length
        while offset < end:
            number = offset // BLOCK_BYTES
            state = self.states[number]
            while number < self._blocks and number * BLOCK_BYTES < end:
                if self.states[number] != state:
                    break
                number += 1
            stop = min(end, number * BLOCK_BYTES)
            yield state, offset, stop - offset
            offset = stop

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of blocks that are in this file; OSError as for ``os.pread``."""
        data = os.pread(self._fd, length, self._data_start + offset)
        return data.ljust(length, b"\0")  # the file ends where nothing was written behind it

    def write(self, offset: int, data: bytes) -> None:
        """Write bytes, which cover whole blocks, or the last one to the disk's end.

        Raises:
            OSError: there is no space, or an earlier flush failed; nothing counts as written.
        """
        self._refuse_after_failure()
        self._put(data, self._data_start + offset)
        self._set(offset, len(data), DATA)

    def zero(self, offset: int, length: int) -> None:
        """Make whole blocks read as zeros; raises as ``write``."""
        self._refuse_after_failure()
        self._set(offset, length, ZEROS)

    def flush(self) -> None:
        """Make all that was written durable.

        Raises:
            OSError: it is not, and never will be: the overlay takes no more writes.
        """
        self._refuse_after_failure()
        try:
            os.fdatasync(self._fd)
            for page in self._changed:
                start = page * _PAGE_BYTES
                states = self.states[start : start + _PAGE_BYTES]
                self._put(states, _HEAD_BYTES + start)
            os.fdatasync(self._fd)
        except OSError:
            self._has_failed = True
            raise
        self._changed.clear()

    def close(self) -> None:
        """Close it, and release its lock, without a flush."""
        close(self._fd)

    def _begin(self, below: Below) -> bytearray:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LockHeldError(f"another process uses the overlay {self._path}") from error
        head = os.pread(self._fd, _HEAD_BYTES, 0)
        if not head:
            self._make(below)
            return bytearray(self._blocks)
        self._check(head, below)
        states = os.pread(self._fd, self._blocks, _HEAD_BYTES)
        if len(states) < self._blocks or states.translate(None, bytes((BELOW, DATA, ZEROS))):
            raise CorruptError(f"the overlay {self._path} is damaged")
        return bytearray(states)

    def _make(self, below: Below) -> None:
        head = (_MAGIC + msgspec.json.encode(below)).ljust(_HEAD_BYTES, b" ")
        if len(head) > _HEAD_BYTES:
            raise ConfigError(f"the names of {below.disk} do not fit into an overlay")
        os.ftruncate(self._fd, self._data_start + below.size_bytes)
        os.fdatasync(self._fd)
        # The head is what makes it an overlay, so it comes last.
        os.pwrite(self._fd, head, 0)
        os.fsync(self._fd)
        TargetPath(self._path.parent).sync_names()

    def _check(self, head: bytes, below: Below) -> None:
        if not head.strip(b"\0"):
            self._make(below)  # the power went while it was made
            return
        if not head.startswith(_MAGIC):
            raise ConfigError(
                f"{self._path} is no overlay of this program", hint="Name a new file."
            )
        try:
            found = msgspec.json.decode(head[len(_MAGIC) :].rstrip(b" "), type=Below)
        except msgspec.MsgspecError as error:
            raise CorruptError(f"the overlay {self._path} is damaged") from error
        if found != below:
            raise ConfigError(
                f"the overlay {self._path} is that of {found.disk} of {found.backup}",
                hint="Serve that disk, or name a new file.",
            )

    def _put(self, data: bytes | bytearray, place: int) -> None:
        view = memoryview(data)
        while view:
            count = os.pwrite(self._fd, view, place)
            view, place = view[count:], place + count

    def _set(self, offset: int, length: int, state: int) -> None:
        first, behind = offset // BLOCK_BYTES, -(-(offset + length) // BLOCK_BYTES)
        self.states[first:behind] = bytes((state,)) * (behind - first)
        self._changed.update(range(first // _PAGE_BYTES, (behind - 1) // _PAGE_BYTES + 1))

    def _refuse_after_failure(self) -> None:
        if self._has_failed:
            raise OSError(errno.EIO, "an earlier flush of the overlay failed")


def _open(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return os.open(path, flags, _MODE)

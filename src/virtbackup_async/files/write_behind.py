"""Writes a file's dirty pages to disk early, and drops them from the page cache afterwards.

::

    file    | on disk, not cached | being written to disk  | being gathered | not written yet
                                    WINDOW_BYTES each

A window ends where a folio of the page cache can end. A write to a folio that is being written to
disk waits for it, and a file that grows by odd lengths would wait each time.

Otherwise the kernel gathers dirty pages up to a tenth of the memory. Then the last ``fdatasync``
takes as long as the copy, the guests' own writes wait for it, and a file that nobody reads evicts
their cached data. Used by ``images/sinks`` and by the packagers' output files. Invariant: at most
two windows of a file are dirty at any time, and the end of a third.
"""

import ctypes
import errno
import os
from typing import Final

WINDOW_BYTES: Final = 16 * 1024 * 1024

# Folios are aligned to their length. Larger ones are rare, and cost time, nothing else.
_FOLIO_BYTES: Final = 1024 * 1024

# linux/fs.h; sync_file_range(2) says how they go together.
_WAIT_BEFORE: Final = 1
_WRITE: Final = 2
_WAIT_AFTER: Final = 4
_UNSUPPORTED: Final = frozenset(
    {errno.ENOSYS, errno.EINVAL, errno.ESPIPE, errno.EOPNOTSUPP, errno.EPERM}
)

_sync_file_range = ctypes.CDLL(None, use_errno=True).sync_file_range
_sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


class WriteBehind:
    """Follows the writes to a file, mostly from front to back.

    Bytes that are written before the current window reach the disk with ``finish``.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._start = self._end = 0
        self._gathered_bytes = 0
        self._on_its_way = (0, 0)

    def gather(self, end: int, length_bytes: int) -> bool:
        """Note that ``length_bytes`` were written, up to ``end``.

        Returns:
            Whether ``push`` is due.
        """
        self._end = max(self._end, end)
        self._gathered_bytes += length_bytes
        return self._gathered_bytes >= WINDOW_BYTES

    def push(self) -> None:
        """Start to write the gathered window to disk, and wait for the one before it. Blocks.

        Raises:
            OSError: earlier writes did not reach the disk.
        """
        end = self._end - self._end % _FOLIO_BYTES
        before, self._on_its_way = self._on_its_way, (self._start, end - self._start)
        self._start, self._gathered_bytes = end, self._end - end
        _sync_range(self._fd, self._on_its_way, _WRITE)
        if before != (0, 0):
            _sync_range(self._fd, before, _WAIT_BEFORE | _WRITE | _WAIT_AFTER)
            os.posix_fadvise(self._fd, *before, os.POSIX_FADV_DONTNEED)

    def finish(self) -> None:
        """Make the whole file durable. Blocks.

        Raises:
            OSError: the storage failed.
        """
        os.fdatasync(self._fd)
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)


def _sync_range(fd: int, window: tuple[int, int], flags: int) -> None:
    # Its errors count: the kernel reports a failed write to a descriptor only once, and the
    # fdatasync at the end would succeed.
    if _sync_file_range(fd, *window, flags) == 0:
        return
    number = ctypes.get_errno()
    if number not in _UNSUPPORTED:
        raise OSError(number, os.strerror(number))

"""What file systems lack: each lack is worked around, and reported once by the process.

::

    fsync of a directory     EINVAL: SMB before Linux 4.17, some FUSE     skipped
    hard links               EPERM, EOPNOTSUPP: FAT, exFAT, SMB, FUSE     a file claims the name
    file modes               EPERM: FAT, SMB, some NFS                    left as they are
    locks                    ENOLCK, EOPNOTSUPP: some NFS, SMB, FUSE      not taken

The code that meets one notes it here and continues, and the command reports it at its end.
docs/how-to/operations.md lists the guarantees that are lost then.
"""

import errno
import fcntl
import os
from enum import StrEnum
from pathlib import Path
from threading import Lock
from typing import Final


class Lack(StrEnum):
    """A feature that a file system lacks, with the guarantee that is lost there."""

    SYNC = "cannot sync directories: after a power cut the last backup may be gone"
    LINKS = "has no hard links: of two programs that begin in the same moment one may be disturbed"
    MODES = "keeps no file modes or owners: who may read the backups is up to how it is mounted"
    LOCKS = (
        "has no locks: nothing keeps `clean` from removing what is being read, and of two changes "
        "of a definition in the same moment one may be lost"
    )


NO_SYNC: Final = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS})
NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
NO_MODES: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS})
FAILURES: Final = frozenset({errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""Errors that show a failure, not a lack."""

_turn = Lock()
_noted: dict[tuple[Path, Lack], bool] = {}


def note(place: Path, lack: Lack) -> None:
    """Note a feature that the file system of a target, or of a directory, lacks."""
    with _turn:
        _noted.setdefault((place, lack), False)


def take_untold() -> list[str]:
    """Return the lacks to be reported, each once in the life of the process."""
    with _turn:
        untold = sorted(found for found, is_told in _noted.items() if not is_told)
        _noted.update(dict.fromkeys(untold, True))
    return [f"the file system of {place} {lack}" for place, lack in untold]


def sync_directory(fd: int, place: Path) -> None:
    """Make the names in a directory durable, if the file system can. Blocks.

    Args:
        fd: the directory, open for reading.
        place: the directory to report if it cannot.

    Raises:
        OSError: the storage failed.
    """
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
        note(place, Lack.SYNC)


def lock(fd: int, how: int, place: Path) -> bool:
    """Take a lock (``flock``) without waiting, if the file system has locks. Blocks for a moment.

    Args:
        fd: of a file or a directory.
        how: ``fcntl.LOCK_EX`` or ``fcntl.LOCK_SH``.
        place: the directory to report if it has none.

    Returns:
        False if another process has it. True as well if the file system has no locks.
    """
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        note(place, Lack.LOCKS)
    return True


def give_mode(fd: int, mode: int, place: Path) -> None:
    """Set the mode of a new file, if the file system has modes. Blocks.

    Raises:
        OSError: the storage failed.
    """
    try:
        os.fchmod(fd, mode)
    except OSError as error:
        if error.errno not in NO_MODES:
            raise
        note(place, Lack.MODES)

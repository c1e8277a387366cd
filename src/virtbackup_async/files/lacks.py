"""What file systems lack, worked round and told once: a notice board of the process.

::

    fsync of a directory     EINVAL: SMB before Linux 4.17, some FUSE     left out
    hard links               EPERM, EOPNOTSUPP: FAT, exFAT, SMB, FUSE     a file claims the name
    file modes               EPERM: FAT, SMB, some NFS                    left as they come
    locks                    ENOLCK, EOPNOTSUPP: some NFS, SMB, FUSE      done without

Whoever meets one notes it here, and goes on; the command tells at its end.
docs/how-to/operations.md says what is not promised then.
"""

import errno
import fcntl
import os
from enum import StrEnum
from pathlib import Path
from threading import Lock
from typing import Final


class Lack(StrEnum):
    """What a file system cannot do, and what is not promised there."""

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
"""What tells of no lack, but of trouble."""

_turn = Lock()
_noted: dict[tuple[Path, Lack], bool] = {}


def note(place: Path, lack: Lack) -> None:
    """Take note of what the file system of a target, or of some directory, lacks."""
    with _turn:
        _noted.setdefault((place, lack), False)


def take_untold() -> list[str]:
    """Return what is to be told, each thing once in the life of the process."""
    with _turn:
        untold = sorted(found for found, is_told in _noted.items() if not is_told)
        _noted.update(dict.fromkeys(untold, True))
    return [f"the file system of {place} {lack}" for place, lack in untold]


def sync_directory(fd: int, place: Path) -> None:
    """Make the names in a directory durable, where that can be done. Blocks.

    Args:
        fd: the directory, open for reading.
        place: what to name if it cannot.

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
    """Take a lock (``flock``) without waiting, where there are locks. Blocks for a moment.

    Args:
        fd: of a file or a directory.
        how: ``fcntl.LOCK_EX`` or ``fcntl.LOCK_SH``.
        place: what to name if there are none.

    Returns:
        False if somebody else has it; True as well where no lock can be had at all.
    """
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        note(place, Lack.LOCKS)
    return True


def give_mode(fd: int, mode: int, place: Path) -> None:
    """Give a file of ours a mode, where there are modes. Blocks.

    Raises:
        OSError: the storage failed.
    """
    try:
        os.fchmod(fd, mode)
    except OSError as error:
        if error.errno not in NO_MODES:
            raise
        note(place, Lack.MODES)

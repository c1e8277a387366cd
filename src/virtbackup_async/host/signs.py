"""Signs that a process works on a domain, in the one directory that all users can write to.

The real lock is in a directory of the user (``domain_locks``), so no other user can hold it or move
it away. But users, and earlier versions of the program, must see each other's work. So each also
puts up a sign, ``flock`` on ``/run/lock/virtbackup-<uuid>.lock``, which was once the lock::

    root      heeds only signs of root, because any user could put one up and keep it
    others    heed all signs, and fail while another process has one up

A sign is an empty file, and nothing relies on it: root works without a sign if it cannot put one
up. All functions block.
"""

import fcntl
import os
from pathlib import Path

from msgspec import Struct

from virtbackup_async.errors import StorageError
from virtbackup_async.files.durable import file_at
from virtbackup_async.files.refusals import close

_DIRECTORY = Path("/run/lock")
_KERNEL_LOCKS = Path("/proc/locks")
_PROCESSES = Path("/proc")
_MODE = 0o666


class Sign(Struct, frozen=True):
    """A sign, or a failed attempt to put one up.

    Attributes:
        descriptor: close it to take the sign down; None if it could not be put up.
        others: processes that have one up for the same domain.
    """

    descriptor: int | None
    others: frozenset[int] = frozenset()


def put_up(uuid: str) -> Sign:
    """Put up a sign for a domain, unless another process has.

    Raises:
        StorageError: it cannot be created; never for root, who works without one.
    """
    path = _path(uuid)
    try:
        descriptor = _open(path)
    except OSError as error:
        if os.geteuid() == 0:
            return Sign(None)
        raise StorageError(f"cannot open the lock {path}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        close(descriptor)
        return Sign(None, holders(path))
    return Sign(descriptor)


def heeded(pids: frozenset[int]) -> frozenset[int]:
    """Return the processes whose signs this user heeds."""
    if os.geteuid() != 0:
        return pids
    return frozenset(pid for pid in pids if _owner(pid) == 0)


def others_at_work(uuid: str) -> frozenset[int]:
    """Return the processes with a sign for the domain that this user heeds."""
    return heeded(holders(_path(uuid)))


def holders(path: Path) -> frozenset[int]:
    """Return the processes that hold ``flock`` on a file, as the kernel lists them.

    A line is ``1: FLOCK  ADVISORY  WRITE 812 00:1a:4711 0 EOF``. Trying the lock instead could
    disturb a backup that wants it at that moment.
    """
    try:
        status = path.stat()
        locks = _KERNEL_LOCKS.read_text()
    except OSError:
        return frozenset()
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    lines = [line.split() for line in locks.splitlines()]
    held = [line for line in lines if "FLOCK" in line and "->" not in line and device in line]
    return frozenset(int(line[line.index(device) - 1]) for line in held)


def _owner(pid: int) -> int | None:
    try:
        return (_PROCESSES / str(pid)).stat().st_uid
    except OSError:
        return None


def _path(uuid: str) -> Path:
    return _DIRECTORY / f"virtbackup-{uuid}.lock"


def _open(path: Path) -> int:
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        # First without O_CREAT: in a sticky directory the kernel refuses to "create" a file that
        # exists and belongs to somebody else, even for root (fs.protected_regular).
        return os.open(path, flags)
    except FileNotFoundError:
        pass
    return file_at(path).claim(mode=_MODE)

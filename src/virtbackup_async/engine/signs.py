"""Signs that a domain is worked on, in the one directory that all users of the host can write to.

A lock that counts lies in a directory of its user's own (``locks``): nobody else can hold it or
move it away. But users, and programs of before, must see of each other what they work on. So each
also puts up a sign, ``flock`` on ``/run/lock/virtbackup-<uuid>.lock``, which was once the lock::

    root      heeds the signs of root alone: any user could put one up and keep it
    others    heed all signs, and fail while another process has one up

Nothing is written into a sign, and it is not relied on: root works without one where it cannot be
put up. All of it blocks.
"""

import fcntl
import os
from pathlib import Path

from msgspec import Struct

from virtbackup_async.errors import StorageError
from virtbackup_async.files.closing import close

_DIRECTORY = Path("/run/lock")
_KERNEL_LOCKS = Path("/proc/locks")
_PROCESSES = Path("/proc")
_MODE = 0o666


class Sign(Struct, frozen=True):
    """What came of putting up a sign.

    Attributes:
        descriptor: to be closed, which takes the sign down; None where it could not be put up.
        others: processes that have one up for the same domain.
    """

    descriptor: int | None
    others: frozenset[int] = frozenset()


def put_up(uuid: str) -> Sign:
    """Put up a sign for a domain, if nobody else has.

    Raises:
        StorageError: it cannot be made, and we are not root, who does without.
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
    """Return those processes whose signs we heed."""
    if os.geteuid() != 0:
        return pids
    return frozenset(pid for pid in pids if _owner(pid) == 0)


def others_at_work(uuid: str) -> frozenset[int]:
    """Return the processes that have up a sign that we heed."""
    return heeded(holders(_path(uuid)))


def holders(path: Path) -> frozenset[int]:
    """Return the processes that hold ``flock`` on a file, as the kernel lists them.

    ``1: FLOCK  ADVISORY  WRITE 812 00:1a:4711 0 EOF``. A try to take the lock could be the very
    moment in which a backup wants it.
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
    descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, _MODE)
    os.fchmod(descriptor, _MODE)
    return descriptor

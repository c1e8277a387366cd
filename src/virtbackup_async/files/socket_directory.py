"""Private directories for Unix sockets, whose paths must be short. All functions block."""

import os
import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import gettempdir, mkdtemp
from typing import Final

_SHORT_PARENT: Final = "/tmp"  # noqa: S108 -- mkdtemp makes it safe
_PARENT_MAX_BYTES: Final = 75
SOCKET: Final = "socket"


def make_socket_directory(prefix: str) -> Path:
    """Make a private directory, in which no other user can connect or create files."""
    return Path(mkdtemp(prefix=prefix, dir=_parent()))


@contextmanager
def socket_directory(prefix: str) -> Iterator[Path]:
    """Make such a directory, and remove it at the end; also those of dead processes.

    The process listens on ``SOCKET`` in it. Directories of that prefix on whose socket no process
    listens any more are removed.
    """
    for left in Path(_parent()).glob(f"{prefix}*"):
        if _is_dead(left):
            shutil.rmtree(left, ignore_errors=True)
    directory = make_socket_directory(prefix)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def is_dead_socket(path: Path) -> bool:
    """Return whether a socket exists on which no process listens.

    Raises:
        FileNotFoundError: it is missing.
        OSError: it cannot be found out.
    """
    if not stat.S_ISSOCK(path.lstat().st_mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        trial.setblocking(False)  # noqa: FBT003 -- socket's signature
        with suppress(BlockingIOError):  # so many wait for it that it lives
            try:
                trial.connect(os.fspath(path))
            except ConnectionRefusedError:
                return True
    return False


def _parent() -> str:
    parent = gettempdir()
    # A socket's path is limited to 107 bytes, and TMPDIR can be longer.
    return _SHORT_PARENT if len(os.fsencode(parent)) > _PARENT_MAX_BYTES else parent


def _is_dead(directory: Path) -> bool:
    with suppress(OSError):
        owner = directory.lstat()
        is_own = stat.S_ISDIR(owner.st_mode) and owner.st_uid == os.geteuid()
        return is_own and is_dead_socket(directory / SOCKET)
    return False

"""Directories that a restore makes: with the mode that is meant, whatever the umask.

QEMU's user has to pass through those of a domain's images and state, on a host whose root has umask
077 as well; and under umask 0 nobody else may write to one.
"""

import stat
from contextlib import suppress
from pathlib import Path


def make_directories(path: Path, mode: int) -> bool:
    """Make a directory and those above it that are missing; return whether it was missing. Blocks.

    Raises:
        OSError: one cannot be made, or something else has its name.
    """
    if path.is_dir():
        return False
    with suppress(FileExistsError):
        make_directories(path.parent, mode)
    make_directory(path, mode)
    return True


def make_directory(path: Path, mode: int) -> None:
    """Make one directory. Blocks.

    Raises:
        OSError: it cannot be made; it exists.
    """
    path.mkdir(mode=mode)
    # Some file systems know no modes: there it is as reachable as they make it.
    with suppress(OSError):
        inherited = path.stat().st_mode & stat.S_ISGID
        path.chmod(mode | inherited)

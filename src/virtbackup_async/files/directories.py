"""Making directories: private ones, and ones with a given mode whatever the umask. Blocks.

Nobody but its owner can have put anything into a private directory: it belongs to this user, is no
link, and neither group nor others may write to it. This host keeps its notes and locks in such
directories, and trusts their content.

QEMU's user must be able to pass through the directories of a domain's images and state, also where
root's umask is 077; and with umask 0 nobody else may write to them.
"""

import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from virtbackup_async.errors import StorageError
from virtbackup_async.files.refusals import close, look_at, storage_error
from virtbackup_async.files.target_path import TargetPath

MODE = 0o700
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def make_private(path: Path) -> list[Path]:
    """Make the directory, durably and with those above it, if it is missing; check it.

    Returns:
        the directories that this call made, outermost first.

    Raises:
        StorageError: it cannot be made, or is not private. Then none is left that this call made.
    """
    try:
        made = make_directories(path, MODE)
    except OSError as error:
        raise storage_error("create", path, error) from error
    try:
        for directory in {path, *made}:
            TargetPath(directory.parent).sync_names()
        check_private(path)
    except StorageError:
        remove_empty(made)
        raise
    return made


def check_private(path: Path) -> bool:
    """Return whether the directory exists; make it private if others may read it.

    Raises:
        StorageError: it is a link, another user's, or others may write to it.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _refused(path, "is a link, or no directory", error) from error
    try:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid():
            raise _refused(path, f"belongs to user {status.st_uid}")
        if status.st_mode & _OTHERS_WRITE:
            raise _refused(path, "can be written to by others")
        if stat.S_IMODE(status.st_mode) != MODE:
            os.fchmod(fd, MODE)
    except OSError as error:
        raise storage_error("change the mode of", path, error) from error
    finally:
        close(fd)
    return True


def check_target(target: Path) -> None:
    """Make sure that a target is there; it is never made, since its disk may not be mounted.

    Raises:
        StorageError: it is missing or no directory, or cannot be looked at.
    """
    seen = look_at(target)
    if seen is None or not stat.S_ISDIR(seen.st_mode):
        raise StorageError(
            f"target {target} is not a directory",
            hint="Create it, or mount the file system that holds it.",
        )


def make_directories(path: Path, mode: int) -> list[Path]:
    """Make a directory and those above it that are missing.

    Returns:
        the directories that this call made, outermost first. Those that another process makes at
        the same moment are not among them.

    Raises:
        OSError: one cannot be made, or something else has its name. Then none is left.
    """
    if path.is_dir():
        return []
    made = make_directories(path.parent, mode)
    try:
        make_directory(path, mode)
    except OSError as error:
        if isinstance(error, FileExistsError) and path.is_dir():
            return made
        remove_empty(made)
        raise
    return [*made, path]


def remove_empty(directories: Sequence[Path]) -> None:
    """Remove directories, given outermost first; those that are in use by now stay."""
    for directory in reversed(directories):
        with suppress(OSError):
            directory.rmdir()


def make_directory(path: Path, mode: int) -> None:
    """Make one directory.

    Raises:
        OSError: it cannot be made; it exists.
    """
    path.mkdir(mode=mode)
    # Some file systems know no modes: there it is as reachable as they make it.
    with suppress(OSError):
        inherited = path.stat().st_mode & stat.S_ISGID
        path.chmod(mode | inherited)


def _refused(path: Path, why: str, error: OSError | None = None) -> StorageError:
    said = f": {error.strerror}" if error else ""
    return StorageError(
        f"{path} {why}, so what is in it cannot be trusted{said}",
        hint="See who made it so, and move it away: the next run makes another.",
    )

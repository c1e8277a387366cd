"""The operating system's errors: named as this program's, or ignored where they do not matter."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from virtbackup_async import errors

_OF_THE_HOST = frozenset(
    {
        errno.EACCES, errno.ECONNABORTED, errno.ECONNRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH,
        errno.EMFILE, errno.ENETDOWN, errno.ENETUNREACH, errno.ENFILE, errno.ENODEV, errno.ENOMEM,
        errno.ENOTCONN, errno.ENXIO, errno.EPERM, errno.ESTALE, errno.ETIMEDOUT,
    }
)  # fmt: skip


def is_of_the_host(error: BaseException | None) -> bool:
    """Return whether an error is the host's, or the network's, and not the file's.

    It says nothing about the file's content, which must not be recorded as damaged.
    """
    return isinstance(error, OSError) and error.errno in _OF_THE_HOST


NOT_FOLLOWED: Final = "a symlink, not followed"
_LINK_HINT: Final = (
    "Below a target no symlink is followed: put what it leads to in its place, or mount it there."
)

_HINTS: Final = {
    errno.EROFS: "Remount it read-write; `dmesg` says why it became read-only.",
    errno.EIO: "Look into `dmesg`: the disk, or the way to it, may fail.",
    errno.ESTALE: "Mount the network file system again.",
    errno.EMFILE: "Raise the limit of open files (`ulimit -n`), or work on fewer domains at once.",
}


def look_at(path: Path, *, follow: bool = True) -> os.stat_result | None:
    """Return the status of a path, None if it does not exist. Blocks.

    ``pathlib``'s predicates do not tell these apart: from Python 3.14 on they are False for a path
    that cannot be looked at, too, which proves nothing.

    Args:
        path: it may be on any file system of the host.
        follow: whether a symbolic link is followed.

    Raises:
        StorageError: it cannot be looked at.
    """
    try:
        return path.stat(follow_symlinks=follow)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise storage_error("look at", path, error) from error


@contextmanager
def reading(what: str, where: str) -> Iterator[None]:
    """Name the file in the errors of the block; a missing file stays a FileNotFoundError.

    Raises:
        CorruptError: the file is damaged, or cannot be read.
        StorageError: it cannot be read now, for an error that is not the file's own: `repair`
            takes damaged files out of the index, and a prune then removes them.
        FileNotFoundError: it is missing: a prune might have put another in its place.
    """
    try:
        yield
    except errors.CorruptError as error:
        raise error.reworded(f"{what} is damaged: {where}: {error.message}") from error
    except FileNotFoundError:
        raise
    except OSError as error:
        raise read_error(what, where, error) from error


def read_error(what: str, where: Path | str, error: OSError) -> errors.VirtBackupError:
    """Return the error of a file that cannot be read: StorageError only if the host is to blame.

    Args:
        what: the kind of file, as a noun: ``package``, ``index``.
        where: what to call the file in messages.
        error: the caller names it as the cause, with ``from``.
    """
    if is_of_the_host(error):
        return storage_error("read", where, error)
    return errors.CorruptError(f"{what} cannot be read: {where}: {error.strerror or error}")


def storage_error(doing: str, path: Path | str, error: OSError) -> errors.StorageError:
    """Return a ``StorageError`` for an error of the operating system.

    Args:
        doing: the action that failed, as a verb: ``write``, ``remove``.
        path: the file or directory it failed on.
        error: the caller names it as the cause, with ``from``.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return errors.StorageFullError(
            f"no space left: cannot {doing} {path}",
            hint="Free some space there, then run the command again.",
        )
    message = f"cannot {doing} {path}: {error.strerror or error}"
    hint = _LINK_HINT if error.strerror == NOT_FOLLOWED else _HINTS.get(error.errno or 0)
    return errors.StorageError(message, hint=hint)


def close(fd: int) -> None:
    """Close a descriptor whose errors do not matter: its data is synced or read. Blocks."""
    try:  # noqa: SIM105 -- suppress() takes as long as the call, and a scan closes thousands
        os.close(fd)
    except OSError:
        pass

"""Room that is kept for the prune, so that a full target can be cleaned.

::

    backups fill the target to the last byte, or take its last inode
    prune       cannot write its lease, or the note of what is to go: it lets go of the reserve
    dead packs  go, and there is room again
    the end     the reserve is made anew

Some files of some KiB, each an inode, beside the rest of the repository; nobody reads them. Where
none could be made, the prune does without as long as there is room.
"""

import errno
import os
from contextlib import suppress
from typing import Final

from virtbackup_async.errors import StorageError
from virtbackup_async.files.closing import close
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.repository.storage.layout import Repository, sync, write_all

# A lease takes two for a moment, a note one, and a name may need a block of its directory.
FILES: Final = 4
FILE_BYTES: Final = 16 * 1024
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def is_full(error: StorageError) -> bool:
    """Tell whether an error says that there is no room, or no inode."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in _FULL


def keep_reserve(repository: Repository) -> None:
    """Make what is missing of the reserve, if there is room for it. Blocks."""
    with suppress(StorageError, OSError):
        for file in _files(repository):
            if not file.exists():
                _make(file)


def release_reserve(repository: Repository) -> bool:
    """Let go of the reserve; False if there is none. Blocks.

    Raises:
        StorageError: it cannot be removed.
    """
    found = False
    for file in _files(repository):
        with suppress(OSError):
            found |= file.exists()
        file.drop()
    return found


def _files(repository: Repository) -> list[TargetPath]:
    return [repository.root / f"reserve-{number}" for number in range(FILES)]


def _make(file: TargetPath) -> None:
    fd = file.create()
    try:
        # Not zeros: a file system that compresses would keep no room for them.
        write_all(fd, os.urandom(FILE_BYTES), file.path)
        sync(fd, file.path)
    except BaseException:
        with suppress(OSError):
            file.unlink()
        raise
    finally:
        close(fd)

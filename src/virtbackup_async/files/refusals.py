"""What the operating system refuses, as an error of ours."""

import errno
from pathlib import Path

from virtbackup_async.errors import StorageError


def storage_error(doing: str, path: Path, error: OSError) -> StorageError:
    """Say what the operating system refused, as an error of ours.

    Args:
        doing: what failed, as a verb: ``write``, ``remove``.
        path: the file or directory it failed on.
        error: to be given as the cause with ``from``.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(
            f"target is full: cannot {doing} {path}",
            hint="Free some space or lower the retention, then run the command again.",
        )
    return StorageError(f"cannot {doing} {path}: {error.strerror or error}")

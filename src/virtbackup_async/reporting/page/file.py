"""Writes the page into its file: readers see the old page or the new one, never a part.

The page names the guests, so its file is private unless the admin chooses another mode. Its
directory is mostly that of a web server, which may belong to another user. So no link is followed,
and an existing file is never changed, only replaced.
"""

import re
import stat
from pathlib import Path
from typing import Final

from anyio import to_thread

from virtbackup_async.errors import StorageError
from virtbackup_async.files.durable import file_at, write_atomically
from virtbackup_async.files.refusals import look_at

_HEAD_BYTES: Final = 4096
_MAILED = re.compile(rb'<meta name="virtbackup-mailed" content="([0-9]{1,12})">')


async def write_page(path: Path, html: str, mode: int | None = None) -> int:
    """Write the page; return its length in bytes.

    Args:
        path: its file.
        html: the page.
        mode: the file's permission bits; None keeps those that it has, or 0600 for a new one.

    Raises:
        StorageError: the directory is missing, not writable or full, or the path is not that of a
            regular file.
    """
    data = html.encode()
    await to_thread.run_sync(_check, path)
    await write_atomically(path, data, keep_owner=True, mode=mode)
    return len(data)


async def last_mailed(path: Path) -> int | None:
    """Return when the page in a file says that it was mailed last, in seconds since the epoch.

    Raises:
        StorageError: the file cannot be read.
    """
    head = await to_thread.run_sync(lambda: file_at(path).read(_HEAD_BYTES))
    found = _MAILED.search(head or b"")
    return int(found[1]) if found else None


def _check(path: Path) -> None:
    """Raise a ``StorageError`` unless the page would replace a regular file, or nothing."""
    status = look_at(path, follow=False)
    if status is not None and not stat.S_ISREG(status.st_mode):
        raise StorageError(
            f"{path} is no regular file", hint="Name a file that the page may replace."
        )

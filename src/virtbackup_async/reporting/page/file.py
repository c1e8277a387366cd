"""Writes the page into its file: readers see the old page or the new one, never a part.

The page names the guests, so its file is private unless the admin says otherwise.
"""

import os
import re
import stat
from pathlib import Path
from typing import Final

from anyio import to_thread

from virtbackup_async.errors import StorageError
from virtbackup_async.files.durable import file_at, write_atomically
from virtbackup_async.files.refusals import close, look_at, storage_error
from virtbackup_async.files.target_path import TargetPath

_HEAD_BYTES: Final = 4096
_MAILED = re.compile(rb'<meta name="virtbackup-mailed" content="([0-9]{1,12})">')


async def write_page(path: Path, html: str, mode: int | None = None) -> int:
    """Write the page; return its length in bytes.

    Args:
        path: its file.
        html: the page.
        mode: the file's permission bits; None: those that it has, 0600 for a new one.

    Raises:
        StorageError: the directory is missing, not writable or full, or the path is no file.
    """
    data = html.encode()
    await to_thread.run_sync(_prepare, path, mode)
    await write_atomically(path, data, keep_owner=True)
    return len(data)


async def last_mailed(path: Path) -> int | None:
    """Return when the page in a file says that it was mailed last, in seconds since the epoch.

    Raises:
        StorageError: the file cannot be read.
    """
    head = await to_thread.run_sync(lambda: _real(path).read(_HEAD_BYTES))
    found = _MAILED.search(head or b"")
    return int(found[1]) if found else None


def _prepare(path: Path, mode: int | None) -> None:
    """Make sure that a file is replaced, and nothing else; give it its mode before its content."""
    status = look_at(path)
    if status is not None and not stat.S_ISREG(status.st_mode):
        raise StorageError(
            f"{path} is no regular file", hint="Name a file that the page may replace."
        )
    if mode is None:
        return
    file = _real(path)
    try:
        if status is None:
            close(file.create(mode=mode))
        elif stat.S_IMODE(status.st_mode) != mode:
            fd = file.open_file()
            try:
                os.fchmod(fd, mode)
            finally:
                close(fd)
    except OSError as error:
        raise storage_error("change the mode of", path, error) from error


def _real(path: Path) -> TargetPath:
    return file_at(Path(os.path.realpath(path)))

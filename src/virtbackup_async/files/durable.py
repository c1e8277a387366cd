"""Files outside targets that survive a power cut: notes, metrics, restored files.

The work is done by ``TargetPath``, with the file's directory in place of a target: links that lead
to the directory are followed, and nothing else. Invariant: when a call returns, its result is on
disk. When it raises, a file that was to be replaced has its old content, or all of the new, which
might not be on disk yet. Each call is one hop to a worker thread, so a cancellation comes before or
after all of it.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path

from anyio import to_thread

from virtbackup_async.files import lacks
from virtbackup_async.files.refusals import close, storage_error
from virtbackup_async.files.target_path import TargetPath, give_owner_of


async def write_atomically(
    path: Path, data: bytes, *, keep_owner: bool = False, mode: int | None = None
) -> None:
    """Put ``data`` into ``path``: readers see the old content or the new, never a part.

    Args:
        path: the file to write or to replace.
        data: its new content.
        keep_owner: give it the owner and the mode of the file that it replaces, as far as this
            user may; else it belongs to this user, with mode 0600.
        mode: its mode in place of that.

    Raises:
        StorageError: the directory is missing, not writable or full.
    """
    await to_thread.run_sync(_write_atomically, path, data, keep_owner, mode)


async def write_exclusively(path: Path, data: bytes) -> None:
    """Put ``data`` into the new file ``path``, mode 0600; the directory is not synced.

    Raises:
        StorageError: it exists, or the directory is missing, not writable or full.
    """
    await to_thread.run_sync(_write_exclusively, path, data)


async def rename_exclusively(path: Path, new: Path) -> None:
    """Rename ``path`` to ``new`` in the same directory, a free name; the directory is not synced.

    Raises:
        StorageError: the name is taken, or the directory is not writable.
    """
    if new.parent != path.parent:
        message = f"not in the same directory: {path}, {new}"
        raise ValueError(message)
    await to_thread.run_sync(file_at(path).rename_exclusively, new.name)


async def keep_as(path: Path, new: Path) -> None:
    """Give ``path`` a second name in the same directory, before it is replaced; nothing is synced.

    Raises:
        StorageError: ``new`` is taken, or the directory is not writable.
    """
    await to_thread.run_sync(_keep_as, path, new)


async def sync_directory(path: Path) -> None:
    """Make the names in the directory ``path`` durable.

    Raises:
        StorageError: it is missing, or the storage failed.
    """
    await to_thread.run_sync(TargetPath(path).sync_names)


async def remove_durably(path: Path) -> None:
    """Remove the file ``path``; a missing one is no error.

    Raises:
        StorageError: the directory is not writable, or the storage failed.
    """
    await to_thread.run_sync(file_at(path).remove)


def file_at(path: Path) -> TargetPath:
    """Return a path of which only the last step must be no link."""
    return TargetPath.of(path, 1)


def give_owner(path: Path, owner: os.stat_result) -> None:
    """Give a file the owner, group and mode of ``owner``, as far as this user may. Blocks.

    Raises:
        OSError: the storage failed.
    """
    fd = file_at(path).open_file()
    try:
        give_owner_of(fd, owner, path)
    finally:
        close(fd)


def sync_file(path: Path) -> None:
    """Make a file, or the names in a directory, durable. Blocks.

    Raises:
        OSError: it is missing, or the storage failed.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            lacks.sync_directory(fd, path)
        else:
            os.fsync(fd)
    finally:
        close(fd)


def _write_atomically(path: Path, data: bytes, keep_owner: bool, mode: int | None) -> None:  # noqa: FBT001 -- run_sync passes no keywords
    # A link is replaced, and the new file is like the one that it leads to.
    like = file_at(Path(os.path.realpath(path))) if keep_owner else None
    file_at(path).replace(data, like, mode)


def _write_exclusively(path: Path, data: bytes) -> None:
    file = file_at(path)
    try:
        file.write_new(data)
    except FileExistsError as error:
        raise storage_error("create", path, error) from error
    except OSError as error:
        with suppress(OSError):
            file.unlink()
        raise storage_error("write", path, error) from error


def _keep_as(path: Path, new: Path) -> None:
    try:
        file_at(path).link(new.name)
    except OSError as error:
        if error.errno not in lacks.NO_LINKS:
            raise storage_error("create", new, error) from error
        _write_exclusively(new, path.read_bytes())
        give_owner(new, path.stat())

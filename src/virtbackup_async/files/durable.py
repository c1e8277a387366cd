"""Small files and directory entries that survive a power cut.

Used by the catalog for definitions and pending files, and by all who create or remove files in a
target. Invariant: when a call returns, what it did is on disk; when it raises, a file that was to
be replaced has its old content, or all of its new one, which may not be on disk yet. Each call is
one hop to a worker thread, so a cancellation comes before the whole of it or after the whole of it.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path

from anyio import to_thread

from virtbackup_async.files import lacks, refusals, target_path
from virtbackup_async.files.closing import close

FILE_MODE = target_path.FILE_MODE
storage_error = refusals.storage_error
_NO_HARD_LINKS = lacks.NO_LINKS


def temporary_path(directory: Path) -> Path:
    """Return a new path for a file that lives for moments; what a crash leaves, ``clean`` finds."""
    return directory / target_path.temporary_name()


async def write_atomically(path: Path, data: bytes, *, keep_owner: bool = False) -> None:
    """Put ``data`` into ``path``: readers see the old content or the new, never a part.

    Args:
        path: what is written or replaced.
        data: its new content.
        keep_owner: give it the owner and the mode of the file that it replaces, as far as we may;
            else it is ours, with mode 0600.

    Raises:
        StorageError: the directory is missing, not writable or full.
    """
    await to_thread.run_sync(replace_file, path, data, keep_owner)


async def write_exclusively(path: Path, data: bytes) -> None:
    """Put ``data`` into the new file ``path``, mode 0600; the directory is not synced.

    Raises:
        StorageError: it exists, or the directory is missing, not writable or full.
    """
    await to_thread.run_sync(_write_exclusively, path, data)


async def rename_exclusively(path: Path, new: Path) -> None:
    """Give ``path`` the name ``new``, which must be free; the directory is not synced.

    Raises:
        StorageError: the name is taken, or the directory is not writable.
    """
    await to_thread.run_sync(_rename_exclusively, path, new)


async def keep_as(path: Path, new: Path) -> None:
    """Give the file ``path`` a second name, for when the first is replaced; nothing is synced.

    Raises:
        StorageError: ``new`` is taken, or the directory is not writable.
    """
    await to_thread.run_sync(_keep_as, path, new)


async def rename_durably(path: Path, new: Path) -> None:
    """Give ``path`` the name ``new``, in place of what had it.

    Raises:
        StorageError: it is gone, or the directory is not writable.
    """
    await to_thread.run_sync(_rename, path, new)


async def sync_directory(path: Path) -> None:
    """Make the names in the directory ``path`` durable.

    Raises:
        StorageError: it is missing, or the storage failed.
    """
    await to_thread.run_sync(sync_names, path)


async def remove_durably(path: Path) -> None:
    """Remove the file ``path``; one that is not there is as good as removed.

    Raises:
        StorageError: the directory is not writable, or the storage failed.
    """
    await to_thread.run_sync(remove_file, path)


def give_owner(path: Path, owner: os.stat_result) -> None:
    """Give a file the owner, group and mode that ``owner`` has, as far as we may. Blocks."""
    # Only root may give files away; for others the group alone may still be theirs to set.
    for uid, gid in ((owner.st_uid, owner.st_gid), (-1, owner.st_gid)):
        with suppress(PermissionError):
            os.chown(path, uid, gid, follow_symlinks=False)
            break
    path.chmod(stat.S_IMODE(owner.st_mode))


def sync_file(path: Path) -> None:
    """Make a file, or the names in a directory, durable. Blocks and raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            lacks.sync_directory(fd, path)
        else:
            os.fsync(fd)
    finally:
        close(fd)


def replace_file(path: Path, data: bytes, keep_owner: bool = False) -> None:  # noqa: FBT001, FBT002 -- run_sync passes no keywords
    """Do what :func:`write_atomically` does. Blocks."""
    # A short name of its own: the final name may be as long as the file system allows.
    part = temporary_path(path.parent)
    try:
        try:
            _write_new(part, data)
            if keep_owner and path.exists():
                give_owner(part, path.stat())
            part.replace(path)
        except BaseException:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise storage_error("write", path, error) from error
    sync_names(path.parent)


def _write_new(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)


def _write_exclusively(path: Path, data: bytes) -> None:
    try:
        _write_new(path, data)
    except FileExistsError as error:
        raise storage_error("create", path, error) from error
    except OSError as error:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        raise storage_error("write", path, error) from error


def _rename_exclusively(path: Path, new: Path) -> None:
    # A hard link takes a free name in one step: who is killed leaves the whole file there, or none.
    try:
        os.link(path, new, follow_symlinks=False)
    except FileExistsError as error:
        raise storage_error("create", new, error) from error
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise storage_error("rename", path, error) from error
        _rename_over_claim(path, new)
        return
    try:
        path.unlink()
    except OSError as error:
        with suppress(OSError):
            new.unlink()
        raise storage_error("rename", path, error) from error


def _rename_over_claim(path: Path, new: Path) -> None:
    # Without hard links an empty file takes the name: only a file of ours is ever replaced.
    _write_exclusively(new, b"")
    try:
        path.replace(new)
    except OSError as error:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise storage_error("rename", path, error) from error


def _keep_as(path: Path, new: Path) -> None:
    try:
        os.link(path, new, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise storage_error("create", new, error) from error
        _write_exclusively(new, path.read_bytes())
        give_owner(new, path.stat())


def _rename(path: Path, new: Path) -> None:
    try:
        path.replace(new)
    except OSError as error:
        raise storage_error("rename", path, error) from error
    sync_names(path.parent)


def remove_file(path: Path) -> None:
    """Do what :func:`remove_durably` does. Blocks."""
    try:
        path.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise storage_error("remove", path, error) from error
    sync_names(path.parent)


def sync_names(path: Path) -> None:
    """Make the names in a directory durable. Blocks.

    Raises:
        StorageError: it is gone, or the storage failed.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            lacks.sync_directory(fd, path)
        finally:
            close(fd)
    except OSError as error:
        raise storage_error("sync", path, error) from error

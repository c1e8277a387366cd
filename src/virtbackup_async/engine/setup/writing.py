"""Writes a new configuration, and makes its target: all of it, or nothing.

The target is made first, since a configuration that names a missing one would fail tonight. If the
configuration cannot be written then, the directories that were made are removed again.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio
from anyio import CancelScope, to_thread

from virtbackup_async.errors import StorageError
from virtbackup_async.files.directories import make_directories, make_private
from virtbackup_async.files.durable import (
    keep_as,
    remove_durably,
    rename_exclusively,
    sync_directory,
    write_atomically,
    write_exclusively,
)
from virtbackup_async.files.refusals import storage_error
from virtbackup_async.model.names import temporary_name

_DIRECTORY_MODE = 0o755


async def write_new_config(
    path: Path, data: bytes, target: Path, *, replace: bool = False
) -> Path | None:
    """Write a configuration file, and make its target if that is missing.

    A cancellation comes before or after all of it.

    Args:
        path: the file; missing directories above it are made.
        data: its content.
        target: the directory for backups.
        replace: put it in the place of a file that is there, which stays as ``FILE.bak``.

    Returns:
        where the old file is now; None if there was none.

    Raises:
        StorageError: something cannot be written, or is there already. Nothing is left then.
    """
    scope = CancelScope(shield=True)
    with scope:
        old = await _write(path, data, target, replace=replace)
    return old  # noqa: RET504 -- a scope that may be left early would return nothing


async def _write(path: Path, data: bytes, target: Path, *, replace: bool) -> Path | None:
    with _made_for_nothing(target), _made_for_nothing(path.parent):
        is_there = await to_thread.run_sync(_make_directories, path, target)
        if not (replace and is_there):
            await _write_exclusively(path, data)
            return None
        # The file itself, not a link to it, which stays.
        file = Path(await anyio.Path(path).resolve())
        old = file.with_name(f"{file.name}.bak")
        await keep_as(file, old)
        await write_atomically(file, data, keep_owner=True)
        return old


def _make_directories(path: Path, target: Path) -> bool:
    """Make what is missing, and tell whether the file is there."""
    try:
        make_directories(path.parent, _DIRECTORY_MODE)
    except OSError as error:
        raise storage_error("create", path.parent, error) from error
    if not os.path.lexists(target):
        make_private(target)
    return os.path.lexists(path)


async def _write_exclusively(path: Path, data: bytes) -> None:
    """Write a new file at once: nobody sees a part of it, and none is replaced."""
    temporary = path.with_name(temporary_name())
    try:
        await write_exclusively(temporary, data)
        await rename_exclusively(temporary, path)
        await sync_directory(path.parent)
    except BaseException:
        with suppress(StorageError):
            await remove_durably(temporary)
        raise


@contextmanager
def _made_for_nothing(path: Path) -> Iterator[None]:
    """Remove the directories that the block made on the way to a path, if it fails."""
    missing = [at for at in (path, *path.parents) if not os.path.lexists(at)]
    try:
        yield
    except BaseException:
        for directory in missing:
            with suppress(OSError):
                directory.rmdir()
        raise

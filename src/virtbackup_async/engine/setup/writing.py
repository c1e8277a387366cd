"""Writes a new configuration, and makes its target: all of it, or nothing.

The target is created first, because a configuration that names a missing one would fail tonight. If
the configuration then cannot be written, the new directories are removed again.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
from anyio import CancelScope, to_thread

from virtbackup_async.errors import StorageError
from virtbackup_async.files.directories import make_directories, make_private, remove_empty
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

    A cancellation takes effect before or after all of it.

    Args:
        path: the file; missing parent directories are created.
        data: its content.
        target: the directory for backups.
        replace: whether to replace an existing file, which is kept as ``FILE.bak``.

    Returns:
        the path of the old file; None if there was none.

    Raises:
        StorageError: something cannot be written, or exists already. Then nothing is left.
    """
    scope = CancelScope(shield=True)
    with scope:
        old = await _write(path, data, target, replace=replace)
    return old  # noqa: RET504 -- a scope that can be left early would return nothing


async def _write(path: Path, data: bytes, target: Path, *, replace: bool) -> Path | None:
    is_there = await to_thread.run_sync(os.path.lexists, path)
    if is_there and not replace:
        raise StorageError(f"{path} exists already")
    async with _directories(path, target, replace=replace):
        if not is_there:
            await _write_exclusively(path, data)
            return None
        # The file itself; a link to it stays.
        file = Path(await anyio.Path(path).resolve())
        old = file.with_name(f"{file.name}.bak")
        await keep_as(file, old)
        try:
            await write_atomically(file, data, keep_owner=True)
        except BaseException:
            with suppress(StorageError):
                await remove_durably(old)
            raise
        return old


async def _write_exclusively(path: Path, data: bytes) -> None:
    """Write a new file atomically: nobody sees a part of it, and no existing file is replaced."""
    temporary = path.with_name(temporary_name())
    try:
        await write_exclusively(temporary, data)
        await rename_exclusively(temporary, path)
        await sync_directory(path.parent)
    except BaseException:
        with suppress(StorageError):
            await remove_durably(temporary)
        raise


@asynccontextmanager
async def _directories(path: Path, target: Path, *, replace: bool) -> AsyncIterator[None]:
    """Make the missing directories of a configuration and its target; remove them on failure.

    They stay if there is a configuration now: another process was faster, and might need them.
    """
    made = await to_thread.run_sync(_make_directories, path.parent, target)
    try:
        yield
    except BaseException:
        if replace or not await to_thread.run_sync(os.path.lexists, path):
            await to_thread.run_sync(remove_empty, made)
        raise


def _make_directories(directory: Path, target: Path) -> list[Path]:
    try:
        made = make_directories(directory, _DIRECTORY_MODE)
    except OSError as error:
        raise storage_error("create", directory, error) from error
    if os.path.lexists(target):
        return made
    try:
        return made + make_private(target)
    except StorageError:
        remove_empty(made)
        raise

"""Packages that are read, so that no other process removes them meanwhile.

::

    directory    a lock on the first of a package's files (locks.py)
    elsewhere    a lease that names the packages (repository/storage/package_leases.py)

One lease serves a whole command: the caller names all packages beforehand with ``hold_all``, and
``hold_to_read`` then takes none for each. Where a lease cannot be written, as with rights to read
alone, packages are read without one: an unprotected restore is better than none.
"""

import logging
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Final

from anyio import to_thread

from virtbackup_async.catalog import definition_file
from virtbackup_async.catalog.scanning import FoundBackup, removal_note
from virtbackup_async.engine.locks import LockWait, acquired, hold_package
from virtbackup_async.errors import (
    LOCK_HINT,
    DefinitionError,
    LockHeldError,
    NotFoundError,
    StorageError,
)
from virtbackup_async.files.refusals import storage_error
from virtbackup_async.model.backup import Definition
from virtbackup_async.model.packager import backup_files
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.model.target_file import AnyFile, TargetFile
from virtbackup_async.repository import (
    Kind,
    find_repository,
    open_leased,
    open_storage,
    take_package_lease,
)

REMOVER_TIMEOUT_S: Final = 60
"""How long to wait for a removal to end; after it the package is gone."""

_log = logging.getLogger(__name__)
_held: ContextVar[frozenset[TargetFile]] = ContextVar("held", default=frozenset())


@asynccontextmanager
async def hold_to_read(definition: Definition, directory: AnyFile) -> AsyncGenerator[None]:
    """Hold a package while the block reads it.

    Raises:
        DefinitionError: the packager is not known.
        LockHeldError: it is being removed.
        NotFoundError: it was removed.
    """
    if isinstance(directory, Path):
        directory = TargetFile.of(directory, 1)
    files = backup_files(definition, directory)
    lock_wait = LockWait(REMOVER_TIMEOUT_S)
    if directory.target.plain_directory is not None:
        async with hold_package(files, exclusive=False, lock_wait=lock_wait):
            yield
        return
    path = directory / f"{definition.name}{definition_file.SUFFIX}"
    async with _leased(directory.target, files[:1]):
        await acquired(partial(to_thread.run_sync, _refuse_removed, path), lock_wait)
        yield


@asynccontextmanager
async def hold_all(backups: Iterable[FoundBackup]) -> AsyncGenerator[None]:
    """Hold packages that the block, and tasks that it starts, will read; by one lease a target."""
    by_target: dict[StorageLocation, list[TargetFile]] = {}
    for found in backups:
        if found.path.target.plain_directory is None:
            by_target.setdefault(found.path.target, []).extend(first_file(found))
    async with AsyncExitStack() as leases:
        for target, files in by_target.items():
            await leases.enter_async_context(_leased(target, files))
        yield


def first_file(found: FoundBackup) -> tuple[TargetFile, ...]:
    """Return the file that stands for a backup's package in a lease; none if it is not known."""
    try:
        return backup_files(found.definition, found.path.parent)[:1]
    except DefinitionError:
        return ()


@asynccontextmanager
async def _leased(target: StorageLocation, files: Sequence[TargetFile]) -> AsyncGenerator[None]:
    """Hold a lease that names packages by their first files, unless one does already."""
    held = _held.get()
    missing = [file.stored_name for file in files if file not in held]
    async with AsyncExitStack() as stack:
        if missing:
            try:
                repository = await to_thread.run_sync(find_repository, target)
                if repository is not None:
                    take = partial(take_package_lease, repository, missing)
                    await stack.enter_async_context(open_leased(take, f"refresh {target}"))
            except StorageError as error:
                _log.warning("%s: a removal may disturb this: %s", target, error.message)
        token = _held.set(held.union(files))
        try:
            yield
        finally:
            _held.reset(token)


def _refuse_removed(definition: TargetFile) -> None:
    """Check that no removal of a backup was begun before its lease was taken. Blocks.

    Raises:
        LockHeldError: one was.
        NotFoundError: one has ended.
    """
    directory = definition.parent
    try:
        found = open_storage(directory.target).names(directory.stored_name, {Kind.FILE})
    except FileNotFoundError:
        found = []
    except OSError as error:
        raise storage_error("read", str(directory), error) from error
    if removal_note(definition).name in found:
        raise LockHeldError(f"another process removes {definition}", hint=LOCK_HINT)
    if definition.name not in found:
        raise NotFoundError(f"backup {definition.stem} was removed in the meantime")

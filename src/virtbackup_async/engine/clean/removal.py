"""Removing one complete backup; a crash never leaves a listed backup without its data.

Called by ``clean`` and ``forget``. The order: the definition becomes a note (``catalog.removing``),
the package goes, the note goes; each step is durable before the next. A restore of the backup holds
its package, and then it stays; a pin that was set in the meantime is seen, because pins are set and
definitions become notes under one lock.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial

from anyio import to_thread

from virtbackup_async.catalog.amendment import hold_definitions
from virtbackup_async.catalog.removing import begin_removal, end_removal
from virtbackup_async.catalog.scanning import FoundBackup
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.engine.inventory.occupied import occupied_bytes
from virtbackup_async.engine.locks import LockWait, acquired, hold_package
from virtbackup_async.errors import LockHeldError, VirtBackupError
from virtbackup_async.events import BackupRemoved, Emit, RemovalFailed
from virtbackup_async.model.packager import backup_files
from virtbackup_async.model.target_file import TargetFile
from virtbackup_async.repository import open_storage

Forget = Callable[[], Awaitable[None]]


async def remove_backup(
    catalog: Catalog, found: FoundBackup, lock_wait: LockWait, forget: Forget
) -> int | None:
    """Remove a backup, or end a removal that was begun.

    Args:
        catalog: of the target.
        found: the backup.
        lock_wait: how long to wait for a process that reads it.
        forget: is called before anything is removed.

    Returns:
        How many bytes are free again; None if it is gone already, or pinned by now.

    Raises:
        LockHeldError: it is being restored; nothing was done.
        DefinitionError: its packager is not known; nothing was done.
        StorageError: the target is not writable; what is left is ended by the next ``clean``.
    """
    files = backup_files(found.definition, found.path.parent)
    async with hold_package(files, exclusive=True, lock_wait=lock_wait):
        freed_bytes = await occupied_bytes([*files, found.path])
        note = await acquired(partial(_begin, catalog, found, files, forget), lock_wait)
        if note is None:
            return None
        await to_thread.run_sync(remove_files, files)
        await end_removal(note)
    return freed_bytes


async def _begin(
    catalog: Catalog, found: FoundBackup, files: Sequence[TargetFile], forget: Forget
) -> TargetFile | None:
    async with hold_definitions(found.path.parent):
        definition = await catalog.read_definition(found.path)
        if definition is None or definition.pinned:
            return None
        await forget()
        return await begin_removal(found.path, files)


def remove_files(files: Iterable[TargetFile]) -> None:
    """Remove files of a target, each durably, in this order; missing ones are no error. Blocks."""
    for file in files:
        open_storage(file.target).remove(file.stored_name)


async def report_removal(  # noqa: PLR0913 -- a domain has a name and a UUID
    emit: Emit,
    group: str,
    domain: str,
    name: str,
    removal: Awaitable[int | None],
    *,
    uuid: str | None = None,
) -> None:
    """Wait for the removal of a backup, and report how it ended; an error does not escape.

    Args:
        emit: gets the event; none for a backup that was gone already, or is pinned by now.
        group: the group whose target it is in.
        domain: its domain.
        name: its own name.
        removal: gives the bytes that are free again; None if nothing was removed.
        uuid: the domain's; None if it is not known.
    """
    try:
        freed_bytes = await removal
    except VirtBackupError as error:
        in_use = isinstance(error, LockHeldError)
        message = error.message if in_use else str(error)
        emit(RemovalFailed(group, domain, name, message, in_use, error.code, error.hint, uuid))
    else:
        if freed_bytes is not None:
            emit(BackupRemoved(group, domain, name, freed_bytes, uuid))

"""Pruning a target's repository after backups were removed from it."""

from functools import partial
from typing import TYPE_CHECKING

from anyio import from_thread, to_thread

from virtbackup_async import repository
from virtbackup_async.errors import LockHeldError
from virtbackup_async.events import Emit, RepositorySwept, Warned
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.packagers.repository.map_files import list_maps

if TYPE_CHECKING:  # numpy takes long to load, and most targets need none
    from virtbackup_async.repository import Pruned


async def prune(target: StorageLocation, emit: Emit) -> None:
    """Remove the chunks that no backup needs from the target's repository, if it has one.

    Raises:
        CorruptError: something is damaged that may be needed; nothing was removed.
        StorageError: the repository is not writable, or full.
    """
    try:
        pruned = await to_thread.run_sync(_pruned, target)
    except LockHeldError as error:
        emit(Warned(f"the repository is not pruned: {error.message}"))
        return
    if pruned is not None:
        emit(
            RepositorySwept(
                target=str(target),
                freed_bytes=pruned.freed_bytes,
                rewritten_bytes=pruned.rewritten_bytes,
                waiting_bytes=pruned.waiting_bytes,
                stored_bytes=pruned.stored_bytes,
                unrewritten_bytes=pruned.unrewritten_bytes,
            )
        )


def _pruned(target: StorageLocation) -> "Pruned | None":
    found = repository.find_repository(target)
    if found is None:
        return None
    maps = partial(list_maps, found.storage)
    return repository.prune_repository(found, maps, from_thread.check_cancelled)

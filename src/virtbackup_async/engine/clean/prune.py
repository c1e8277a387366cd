"""Pruning a target's repository after backups were removed from it."""

from functools import partial

from anyio import from_thread, to_thread

from virtbackup_async.errors import LockHeldError
from virtbackup_async.events import Emit, RepositorySwept, Warned
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.packagers.repository.map_files import list_maps
from virtbackup_async.repository import Pruned, find_repository, prune_repository


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


def _pruned(target: StorageLocation) -> Pruned | None:
    repository = find_repository(target)
    if repository is None:
        return None
    maps = partial(list_maps, repository.storage)
    return prune_repository(repository, maps, from_thread.check_cancelled)

"""Giving back the space of chunks that no backup needs any more: the end of ``clean``."""

from pathlib import Path

from anyio import from_thread, to_thread

from virtbackup_async.errors import LockHeldError
from virtbackup_async.events import Emit, RepositorySwept, Warned
from virtbackup_async.repository.prune.prune import Swept, sweep
from virtbackup_async.repository.storage.repository_file import find_repository


async def sweep_target(target: Path, emit: Emit) -> None:
    """Sweep the repository of a target, if it has one, and say what came of it.

    Raises:
        CorruptError: something is damaged that may be needed; nothing was removed.
        StorageError: the repository is not writable, or full.
    """
    try:
        swept = await to_thread.run_sync(_sweep, target)
    except LockHeldError as error:
        emit(Warned(f"the repository is not swept: {error.message}"))
        return
    if swept is not None:
        emit(
            RepositorySwept(
                target=str(target),
                freed_bytes=swept.freed_bytes,
                rewritten_bytes=swept.rewritten_bytes,
                waiting_bytes=swept.waiting_bytes,
                stored_bytes=swept.stored_bytes,
                unrewritten_bytes=swept.unrewritten_bytes,
            )
        )


def _sweep(target: Path) -> Swept | None:
    repository = find_repository(target)
    if repository is None:
        return None
    return sweep(target, repository, from_thread.check_cancelled)

"""Extends the locks of what a target still needs, where its bucket has Object Lock.

``clean`` does it after it has removed and pruned: what is left is needed. This host notes until
when everything is locked, in its state directory, where no writer of the target can forge it; a
lost note costs requests alone::

    STATE/locks/<target>.<16 hexadecimal digits>      seconds since the epoch, by the store's clock
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from anyio import to_thread

from virtbackup_async.engine.host_state import Host
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.errors import StorageError
from virtbackup_async.events import LocksExtended, Warned
from virtbackup_async.files.directories import make_private
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository import ExtendedLocks, extend_locks, lock_of_bucket

_DIRECTORY: Final = "locks"
_MAX_BYTES: Final = 64


async def extend_target_locks(runtime: Runtime, target: StorageLocation) -> None:
    """Extend the locks of a target's files, if its bucket locks new ones, and it is time.

    Raises:
        StorageError: a file could not be locked.
    """
    if target.is_local:
        return
    try:
        lock = await to_thread.run_sync(lock_of_bucket, target)
    except StorageError as error:
        runtime.emit(Warned(f"no lock is extended, if there are any: {error}"))
        return
    if lock is None or lock.mode is None:
        return
    before_s = await to_thread.run_sync(locked_until, runtime.host, target)
    extended = await to_thread.run_sync(extend_locks, target, lock, before_s)
    if extended is not None:
        await to_thread.run_sync(_note, runtime.host, target, extended)
        until = datetime.fromtimestamp(int(extended.until_s), UTC)
        runtime.emit(LocksExtended(str(target), extended.objects, until.isoformat()))


def locked_until(host: Host, target: StorageLocation) -> float | None:
    """Return until when this host has locked a target's files; None if it has not. Blocks."""
    try:
        with _note_path(host, target).open("rb") as file:
            return float(file.read(_MAX_BYTES))
    except (OSError, ValueError):
        return None


def _note(host: Host, target: StorageLocation, extended: ExtendedLocks) -> None:
    path = _note_path(host, target)
    make_private(path.parent.parent)
    make_private(path.parent)
    (TargetPath(path.parent) / path.name).replace(f"{extended.until_s:.0f}\n".encode())


def _note_path(host: Host, target: StorageLocation) -> Path:
    pending = host.catalog(target).pending_target
    name = pending.directory.name if pending is not None else ""
    return host.notes.state_directory / _DIRECTORY / name

"""Opens the repositories of a run before the first domain is touched.

A key that does not fit fails the run at once, with nothing written; so does an encrypted target
without a key. A target without a repository gets one, and with it the key file; then an admin must
hear that there is only this one key.
"""

from collections.abc import Iterable

from anyio import to_thread

from virtbackup_async.engine.plan import PlannedBackup, target_of
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.errors import CorruptError, StorageError
from virtbackup_async.events import Warned
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository import find_repository, make_repository


async def open_repositories(runtime: Runtime, backups: Iterable[PlannedBackup]) -> None:
    """Open each repository; make one that is to be encrypted, and its key file, if it is missing.

    Raises:
        ConfigError: a key file is missing, not private, or opens no slot; a target that is to be
            encrypted is not, or the other way round.
    """
    groups = {target_of(planned.group): planned.group.name for planned in backups}
    for target, group in groups.items():
        try:
            is_new = await to_thread.run_sync(_open, target)
        except (StorageError, CorruptError):
            continue  # each backup into it fails by itself, and says why
        if is_new:
            runtime.emit(Warned(f"{target}: {_first_words(target, group)}"))


def _first_words(target: StorageLocation, group: str) -> str:
    if target.sealed_for is not None:
        return (
            f"from now on, only the recovery key of {target.sealed_for} opens the disks in these "
            "backups: see that its print exists, away from this host"
        )
    return (
        f"from now on, only {target.key_file} opens these backups: run 'virtbackup key paper "
        f"{group}', and keep the print away from this host"
    )


def _open(target: StorageLocation) -> bool:
    if find_repository(target) is not None or not target.is_encrypted:
        return False
    make_repository(target)
    return True

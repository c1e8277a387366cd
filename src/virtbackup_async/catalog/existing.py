"""The storage of a target that may have no files yet."""

from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository import Storage, find_repository, open_storage


def open_existing(target: StorageLocation) -> Storage | None:
    """Return the storage of a target; None for an encrypted one before its first backup. Blocks.

    The keys of an encrypted target are made with its repository: without one it has no files.

    Raises:
        StorageError: it cannot be reached.
        ConfigError: its key file does not fit.
        CorruptError: its repository is damaged.
    """
    if target.is_encrypted and find_repository(target) is None:
        return None
    return open_storage(target)

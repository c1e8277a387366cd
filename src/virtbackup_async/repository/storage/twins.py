"""Two repositories with the same keys: chunks move from one to the other as they are stored.

A host cannot open the chunks of a sealed repository, so it can copy them only into one that is
sealed with the same keys. Such a repository is made by the first copy into a target whose group has
the same key files as the source's. A rotation of the keys of one of them parts the two.
"""

from virtbackup_async.errors import ConfigError
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository.storage.layout import Repository
from virtbackup_async.repository.storage.repository_file import (
    find_repository,
    key_of,
    loading_extra,
    make_directories,
    open_inner,
)

_HINT = (
    "Give the recovery key with --recovery, or name a target without a repository in a group with "
    "the same 'encryption' as the source's."
)


def prepare_copy(source: StorageLocation, destination: StorageLocation) -> None:
    """Make the repository that copies go into with the keys of their source, if it may be. Blocks.

    Args:
        source: where the backups are.
        destination: where they go; its repository is left as it is, if it has one.

    Raises:
        ConfigError: the copies need the recovery key of the source, which is not here.
        StorageError: a target cannot be read or written.
        CorruptError: a repository is damaged.
    """
    found = find_repository(source) if source.is_encrypted else None
    if found is None:
        return
    have_same_files = (source.key_file, source.sealed_for) == (
        destination.key_file,
        destination.sealed_for,
    )
    if have_same_files and destination.key_file is not None:
        _make_twin(source, destination)
    refuse_copy(source, destination)


def refuse_copy(source: StorageLocation, destination: StorageLocation) -> None:
    """Check that the keys that are here are enough to copy. Blocks.

    Raises:
        ConfigError: they are not: only the recovery key opens the source, and the destination has
            other keys.
        StorageError, CorruptError: as ``prepare_copy``.
    """
    found = find_repository(source) if source.is_encrypted else None
    if found is None or found.sealing.can_read:
        return
    there: Repository | None = find_repository(destination) if destination.is_encrypted else None
    if there is None or there.sealing != found.sealing:
        raise ConfigError(
            f"only the recovery key opens the backups in {source}, and {destination} does not have "
            "the same keys",
            hint=_HINT,
        )


def _make_twin(source: StorageLocation, destination: StorageLocation) -> None:
    if destination.key_file is None or find_repository(destination) is not None:
        return
    with loading_extra():
        from virtbackup_async.repository.storage import encrypted  # noqa: PLC0415 -- see above
    key = key_of(source)
    if key is None:
        return
    masters = encrypted.masters_of(open_inner(source), key)
    storage = open_inner(destination)
    make_directories(storage)
    encrypted.make_encrypted(storage, destination.key_file, destination.sealed_for, masters)

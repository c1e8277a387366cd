"""The space that removing backups would free: their files, and the chunks that only they need."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from anyio import from_thread, to_thread

from virtbackup_async import repository
from virtbackup_async.catalog.scanning import FoundBackup
from virtbackup_async.engine.inventory.occupied import occupied_by_each
from virtbackup_async.errors import CorruptError, DefinitionError
from virtbackup_async.events import Emit, Warned
from virtbackup_async.model.packager import backup_files, type_of
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.model.target_file import TargetFile
from virtbackup_async.packagers.repository.map_files import list_maps


def freed_by_each(target: StorageLocation, backups: Iterable[FoundBackup]) -> dict[TargetFile, int]:
    """Return the bytes that removing each backup would free, by its definition's path. Blocks.

    Removing a backup frees its files. With a repository these are only maps; pruning then frees the
    chunks that no other backup needs.

    Raises:
        CorruptError: a map or the index of the repository is damaged.
        StorageError: it cannot be read.
    """
    paths = {found.path: package_paths(found) for found in backups}
    taken = occupied_by_each(file for own in paths.items() for file in (own[0], *own[1]))
    freed = {
        definition: sum(taken[file] for file in (definition, *files))
        for definition, files in paths.items()
    }
    in_repository = [
        found.path for found in backups if type_of(found.definition.packager).uses_repository
    ]
    owners = {
        file.stored_name: owner
        for owner, definition in enumerate(in_repository)
        for file in paths[definition]
    }
    # Backups without disks at the end own nothing.
    for definition, own in zip(in_repository, _own_bytes(target, owners), strict=False):
        freed[definition] += own
    return freed


def freed_together(target: StorageLocation, files: Sequence[TargetFile]) -> int:
    """Return the bytes that removing some files of backups, maps among them, would free. Blocks.

    A chunk counts even if several of these backups share it, as long as no other backup needs it.

    Raises:
        CorruptError, StorageError: as for :func:`freed_by_each`.
    """
    owners = {file.stored_name: 0 for file in files}
    return sum(occupied_by_each(files).values()) + sum(_own_bytes(target, owners))


def files_of(backups: Iterable[FoundBackup]) -> list[TargetFile]:
    """Return all files that removing some backups removes."""
    return [file for found in backups for file in (*package_paths(found), found.path)]


async def would_free(
    target: StorageLocation, files: Sequence[TargetFile], emit: Emit
) -> int | None:
    """Return the bytes that removing some files would free; None, with a warning, if unknown."""
    try:
        return await to_thread.run_sync(freed_together, target, files)
    except CorruptError as error:
        # The backups can be removed anyway; pruning then reports the problem again.
        emit(Warned(f"what that frees in the repository is not known: {error}"))
        return None


def package_paths(found: FoundBackup) -> tuple[TargetFile, ...]:
    """Return the package's files; none if a newer program made it."""
    try:
        return backup_files(found.definition, found.path.parent)
    except DefinitionError:
        return ()


def _own_bytes(target: StorageLocation, owners: Mapping[str, int]) -> tuple[int, ...]:
    found = repository.find_repository(target) if owners else None
    if found is None:
        return ()
    maps = partial(list_maps, found.storage)
    usage = repository.exclusive_usage(found, maps, owners, from_thread.check_cancelled)
    return usage.own_bytes

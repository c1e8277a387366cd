"""How much room the removal of each backup would make: for ``stats --backups``.

What a file takes goes with it. In a repository that is only the map: of the chunks those go that no
other backup needs, when ``clean`` sweeps.
"""

from collections.abc import Iterable
from pathlib import Path

from anyio import from_thread

from virtbackup_async.catalog.scanning import FoundBackup
from virtbackup_async.engine.clean.removal import backup_paths, occupied_by
from virtbackup_async.errors import DefinitionError
from virtbackup_async.repository.storage.repository_file import find_repository
from virtbackup_async.repository.usage.exclusive import share_out


def freed_by_each(target: Path, backups: Iterable[FoundBackup]) -> dict[Path, int]:
    """Return what each backup of a target would free, by their definitions' paths. Blocks.

    Raises:
        CorruptError: a map or the index of the repository is damaged.
        StorageError: it cannot be read.
    """
    paths = {found.path: _files(found) for found in backups}
    freed = {
        definition: sum(map(occupied_by, (definition, *files)))
        for definition, files in paths.items()
    }
    repository = find_repository(target)
    if repository is None:
        return freed
    in_repository = [
        found.path for found in backups if found.definition.packager.type == "repository"
    ]
    owners = {
        file: owner for owner, definition in enumerate(in_repository) for file in paths[definition]
    }
    shares = share_out(target, repository, owners, from_thread.check_cancelled)
    # Those at the end that have no disks own nothing.
    for definition, own_bytes in zip(in_repository, shares.own_bytes, strict=False):
        freed[definition] += own_bytes
    return freed


def _files(found: FoundBackup) -> tuple[Path, ...]:
    try:
        return backup_paths(found)
    except DefinitionError:  # made by a newer program
        return ()

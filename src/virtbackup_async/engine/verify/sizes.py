"""``verify --quick`` of packages that are files of their own: are they there, and long enough?

Packages in a repository are looked at by ``verify_repository``.
"""

import stat
from pathlib import Path

from anyio import to_thread

from virtbackup_async.catalog.scanning import FoundBackup
from virtbackup_async.errors import CorruptError
from virtbackup_async.files.durable import storage_error
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.model.backup import Definition
from virtbackup_async.model.packager import backup_paths, packed_files, type_of


async def look_at_package(found: FoundBackup) -> int:
    """Look at the lengths of a package's files.

    Returns:
        How many bytes of data were recorded of it; 0 for backups of virt-backup.

    Raises:
        CorruptError: a file is missing, no regular file, or too short.
        DefinitionError: the packager is not known.
        StorageError: a file cannot be looked at now.
    """
    await to_thread.run_sync(_look, found.definition, found.path.parent)
    return sum(image.data_bytes for image in found.definition.images)


def _look(definition: Definition, directory: Path) -> None:
    paths = backup_paths(definition, directory)
    sizes = type_of(definition.packager).least_bytes(definition, packed_files(definition))
    for path, least_bytes in zip(paths, sizes, strict=True):
        try:
            status = TargetPath.in_domain(path).status()
        except FileNotFoundError as error:
            raise CorruptError(f"package is missing: {path}") from error
        except OSError as error:
            # It may be whole: what cannot be looked at now must not be noted as damaged.
            raise storage_error("read", path, error) from error
        if not stat.S_ISREG(status.st_mode):
            raise CorruptError(f"package is no regular file: {path}")
        if status.st_size < least_bytes:
            raise CorruptError(
                f"package is cut off: {path} is {status.st_size} bytes long, "
                f"{least_bytes} were recorded"
            )

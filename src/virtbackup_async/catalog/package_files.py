"""Which files a backup consists of, told from its definition or pending file alone.

The scan compares them with what the directory holds. The names are virt-backup's; ``packagers``
makes them (counterpart: the module of each packager there), docs/reference/formats.md shows them.
"""

from collections.abc import Collection

from virtbackup_async.model.backup import Definition, Pending


def missing_files(definition: Definition, present: Collection[str]) -> list[str]:
    """Return those file names of the backup's package that are not among ``present``.

    A packager that is not known counts as complete: its own reader will tell.
    """
    return [file for file in package_files(definition, present) if file not in present]


def package_files(backup: Definition | Pending, present: Collection[str]) -> list[str]:
    """Return the names of the files that the package consists of, or was to consist of."""
    match backup.packager.type:
        case "directory":
            return list(packed_files(backup))
        case "zstd":
            return [f"{backup.name}_{file}.zstd" for file in packed_files(backup)]
        case "repository":
            return [f"{file}.map" for file in packed_files(backup)]
        case "tar":
            return [_archive(backup, present)]
        case _:
            return []


def packed_files(backup: Definition | Pending) -> tuple[str, ...]:
    """Return the names of all files inside the package.

    The disks' images come first, then those below them, then the domain's state.
    """
    if isinstance(backup, Pending):
        disks = backup.disks.values()
        images = tuple(file for disk in disks for file in (disk.target, *disk.backing))
        return (*images, *backup.state_files)
    backing = [image.file for record in backup.records.values() for image in record.backing]
    state = [record.image.file for record in backup.state_files]
    return (*backup.disks.values(), *backing, *state)


def _archive(backup: Definition | Pending, present: Collection[str]) -> str:
    name = backup.name
    # virt-backup takes a domain called "x.tar" for an archive's name, and adds no suffix to it.
    if ".tar" in name and name in present:
        return name
    compression = backup.packager.opts.get("compression")
    return f"{name}.tar" if compression in (None, "tar") else f"{name}.tar.{compression}"

"""Which files a finished backup consists of, told from its definition alone.

The scan compares them with what the directory holds. The names are virt-backup's; ``packagers``
makes them (counterpart: the module of each packager there), docs/formats.md shows them.
"""

from collections.abc import Collection

from virtbackup_async.model.backup import Definition


def missing_files(definition: Definition, present: Collection[str]) -> list[str]:
    """Return those file names of the backup's package that are not among ``present``.

    A packager that is not known counts as complete: its own reader will tell.
    """
    match definition.packager.type:
        case "directory":
            expected = _image_files(definition)
        case "zstd":
            expected = [f"{definition.name}_{file}.zstd" for file in _image_files(definition)]
        case "tar":
            expected = [_archive(definition, present)]
        case _:
            expected = []
    return [file for file in expected if file not in present]


def _image_files(definition: Definition) -> list[str]:
    backing = [image.file for record in definition.records.values() for image in record.backing]
    return [*definition.disks.values(), *backing]


def _archive(definition: Definition, present: Collection[str]) -> str:
    name = definition.name
    # virt-backup takes a domain called "x.tar" for an archive's name, and adds no suffix to it.
    if ".tar" in name and name in present:
        return name
    compression = definition.packager.opts.get("compression")
    return f"{name}.tar" if compression in (None, "tar") else f"{name}.tar.{compression}"

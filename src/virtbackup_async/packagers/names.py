"""Where the packages lie: the file names, of virt-backup's packagers to the letter.

::

    directory   <directory>/<file>
    tar         <directory>/<name>.tar[.gz|.bz2|.xz]     a member <file> for each disk
    zstd        <directory>/<name>_<file>.zstd           one for each disk
    repository  <directory>/<file>.map                   one for each disk

Used by all packagers. Names come from definitions and may be hostile: nothing leaves the
directory, because only plain names get through.
"""

from pathlib import Path

from virtbackup_async.errors import DefinitionError
from virtbackup_async.model.backup import Packager

COMPRESSIONS = (None, "tar", "gz", "bz2", "xz")


def plain_name(name: str) -> str:
    """Give ``name`` back if it names an entry of a directory and nothing else.

    Raises:
        DefinitionError: it is empty, a path, or has a NUL.
    """
    if name in {"", ".", ".."} or "/" in name or "\0" in name:
        raise DefinitionError(f"not a plain file name: {name!r}")
    return name


def directory_path(directory: Path, file: str) -> Path:
    """The file of a disk in a directory package."""
    return directory / plain_name(file)


def tar_path(directory: Path, name: str, packager: Packager) -> Path:
    """The archive of a tar package."""
    plain_name(name)
    # virt-backup takes a name with ".tar" anywhere in it for one with its extension on.
    if ".tar" in name:
        return directory / name
    compression = packager.opts.get("compression")
    if compression not in COMPRESSIONS:
        raise DefinitionError(f"unknown tar compression of {name}: {compression!r}")
    suffix = "" if compression in {None, "tar"} else f".{compression}"
    return directory / f"{name}.tar{suffix}"


def zstd_path(directory: Path, name: str, file: str) -> Path:
    """The compressed file of a disk in a zstd package."""
    return directory / f"{plain_name(name)}_{plain_name(file)}.zstd"


def map_path(directory: Path, file: str) -> Path:
    """The map of a disk whose chunks are in the target's repository."""
    return directory / f"{plain_name(file)}.map"

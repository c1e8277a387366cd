"""Lists the maps of a target, whose chunks the repository must keep.

::

    TARGET/web/20260301-021500_3_web_vda.raw.map
               backup                disk

A map without a definition counts like any other: its backup might be about to finish.
"""

from virtbackup_async.errors import StorageError
from virtbackup_async.model.packager import type_named
from virtbackup_async.repository import Kind, MapFile, Storage

_SUFFIX = type_named("repository").suffix
_FIELDS_OF_A_BACKUP = 2


def list_maps(storage: Storage) -> list[MapFile]:
    """Return all maps in a target's storage, those of a disk by date. Blocks.

    Raises:
        StorageError: a directory cannot be read.
    """
    try:
        # Maps below a link would be ignored and their chunks removed, so a link is refused.
        directories = storage.names("", {Kind.DIRECTORY, Kind.LINK, Kind.LOST_LINK})
    except FileNotFoundError as error:
        raise StorageError(f"cannot read {storage.where()}: {error.strerror}") from error
    return [
        file
        for directory in directories
        if not directory.startswith(".")
        for file in _maps_in(storage, directory)
    ]


def _maps_in(storage: Storage, directory: str) -> list[MapFile]:
    try:
        names = storage.names(directory, frozenset(Kind))
    except FileNotFoundError:
        return []
    maps = sorted((_disk_in(name), name) for name in names if name.endswith(_SUFFIX))
    return [MapFile(f"{directory}/{name}", f"{directory}/{disk}") for disk, name in maps]


def _disk_in(name: str) -> str:
    return name.split("_", maxsplit=_FIELDS_OF_A_BACKUP)[-1]

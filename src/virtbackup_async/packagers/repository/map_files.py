"""Which maps a target has: what the repository must not remove the chunks of.

::

    TARGET/web/20260301-021500_3_web_vda.raw.map
               backup                disk

A map without a definition counts as any other: its backup may be about to end.
"""

import os
from pathlib import Path

from virtbackup_async.files.refusals import storage_error
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.model.packager import type_named
from virtbackup_async.repository import MapFile

_SUFFIX = type_named("repository").suffix
_FIELDS_OF_A_BACKUP = 2


def list_maps(target: Path) -> list[MapFile]:
    """Return all maps in a target, those of a disk by date. Blocks.

    Raises:
        StorageError: a directory cannot be read.
    """
    top = TargetPath(target)
    try:
        return [file for name in top.names(_may_hold_maps) for file in _maps_in(top / name)]
    except OSError as error:
        raise storage_error("read", target, error) from error


def _may_hold_maps(entry: os.DirEntry[str]) -> bool:
    """Whether an entry of a target can be a directory with maps; a link counts, and is refused."""
    is_link = entry.is_symlink() and not entry.is_file()
    return entry.name[0] != "." and (entry.is_dir(follow_symlinks=False) or is_link)


def _maps_in(directory: TargetPath) -> list[MapFile]:
    try:
        names = directory.names(lambda entry: entry.name.endswith(_SUFFIX))
    except FileNotFoundError:
        return []
    except OSError as error:
        # Chunks must not be removed only because the map that needs them cannot be seen.
        raise storage_error("read", directory.path, error) from error
    names.sort(key=lambda name: (_disk_in(name), name))
    return [MapFile(directory.path / name, f"{directory.name}/{_disk_in(name)}") for name in names]


def _disk_in(name: str) -> str:
    return name.split("_", maxsplit=_FIELDS_OF_A_BACKUP)[-1]

"""Removing files of a target in steps: a crash between any two leaves no false backup.

A backup is removed in this order; the right column shows the state after a crash at that point::

    begin_removal     the definition has become a note: no program lists the backup any more
      ... the package is removed ...
    end_removal       nothing is left

A note is the definition under another name, ``<name>.json.removed``, which virt-backup passes
over; the next ``clean`` finds it by reading the directory, and goes on. Called by the engine.
"""

from pathlib import Path

from anyio import to_thread

from virtbackup_async.catalog.scanning import REMOVED_SUFFIX, removal_note
from virtbackup_async.files.refusals import storage_error
from virtbackup_async.files.target_path import TargetPath


async def begin_removal(path: Path) -> Path:
    """Rename a definition to mark its backup as being removed; return the new path.

    One that is a note already stays as it is.
    """
    if path.name.endswith(REMOVED_SUFFIX):
        return path
    note = removal_note(path)
    await to_thread.run_sync(TargetPath.in_domain(path).rename_durably, note.name)
    return note


async def end_removal(note: Path) -> None:
    """Remove the mark, the package being gone."""
    await to_thread.run_sync(TargetPath.in_domain(note).remove)


async def remove_claim(path: Path) -> bool:
    """Remove an empty pending file; False if it is gone, or was filled this very moment."""
    return await to_thread.run_sync(_remove_claim, path)


def _remove_claim(path: Path) -> bool:
    # Moved aside first: what its owner may write now is another file, and stays.
    place = TargetPath.in_domain(path)
    aside = place.parent.temporary()
    try:
        place.rename(aside.name)
        if aside.status().st_size > 0:
            aside.rename_exclusively(place.name)
            return False
        aside.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise storage_error("remove", path, error) from error
    return True

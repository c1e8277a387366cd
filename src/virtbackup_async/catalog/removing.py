"""Removing files of a target in steps: a crash between any two leaves no false backup.

A backup is removed in this order; the right column shows the state after a crash at that point::

    begin_removal     the definition has become a note: no program lists the backup any more
      ... the package is removed ...
    end_removal       nothing is left

A note is the definition under another name, ``<name>.json.removed``, which virt-backup passes
over; the next ``clean`` finds it by reading the directory, and goes on. Called by the engine.

An object store cannot rename: a crash in between leaves the definition and its note, and all data.
The scan then counts the note alone, and the next ``clean`` removes the definition first.
"""

from anyio import to_thread

from virtbackup_async.catalog.scanning import REMOVED_SUFFIX, definition_path, removal_note
from virtbackup_async.files.refusals import storage_error
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.model.target_file import TargetFile
from virtbackup_async.repository import open_storage


async def begin_removal(path: TargetFile) -> TargetFile:
    """Rename a definition to mark its backup as being removed; return the new path.

    One that is a note already stays as it is, and its definition goes if it is still there.
    """
    return await to_thread.run_sync(_begin, path)


def _begin(path: TargetFile) -> TargetFile:
    storage = open_storage(path.target)
    if not path.name.endswith(REMOVED_SUFFIX):
        note = removal_note(path)
        storage.rename(path.stored_name, note.name)
        return note
    if path.target.plain_directory is None:
        # Only in a directory is renaming one step.
        storage.remove(definition_path(path).stored_name)
    return path


async def end_removal(note: TargetFile) -> None:
    """Remove the mark, the package being gone."""
    storage = await to_thread.run_sync(open_storage, note.target)
    await to_thread.run_sync(storage.remove, note.stored_name)


async def remove_claim(path: TargetFile) -> bool:
    """Remove an empty pending file; False if it is gone, or was filled this very moment."""
    return await to_thread.run_sync(_remove_claim, path)


def _remove_claim(path: TargetFile) -> bool:
    # Moved aside first: what its owner may write now is another file, and stays.
    place = TargetPath.at(path)
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
        raise storage_error("remove", path.local, error) from error
    return True

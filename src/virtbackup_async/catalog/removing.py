"""How files of a target go: in steps that a crash may cut anywhere, without a false backup.

A backup is removed in this order; a crash behind a step leaves what the right column says::

    begin_removal     the definition has become a note: listed no more, by nobody
      ... the package is removed ...
    end_removal       nothing is left

A note is the definition under another name, ``<name>.json.removed``, which virt-backup passes
over; the next ``clean`` finds it by reading the directory, and goes on. Called by the engine.
"""

import os
from pathlib import Path

from anyio import to_thread

from virtbackup_async.catalog.scanning import REMOVED_SUFFIX, removal_note
from virtbackup_async.images.durable import (
    remove_durably,
    rename_durably,
    storage_error,
    temporary_path,
)


async def begin_removal(path: Path) -> Path:
    """Turn a definition into the note of its backup's removal, and return the note's path.

    One that is a note already stays as it is.
    """
    if path.name.endswith(REMOVED_SUFFIX):
        return path
    note = removal_note(path)
    await rename_durably(path, note)
    return note


async def end_removal(note: Path) -> None:
    """Forget a backup, its package being gone."""
    await remove_durably(note)


async def remove_claim(path: Path) -> bool:
    """Remove an empty pending file; False if it is gone, or was filled this very moment."""
    return await to_thread.run_sync(_remove_claim, path)


def _remove_claim(path: Path) -> bool:
    # Moved aside first: what its owner may write now is another file, and stays.
    aside = temporary_path(path.parent)
    try:
        path.rename(aside)
        if aside.stat().st_size > 0:
            os.link(aside, path)
            aside.unlink()
            return False
        aside.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise storage_error("remove", path, error) from error
    return True

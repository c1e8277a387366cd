"""Does a target refuse what a writer must not do? Tried on a file of this host's own.

::

    TARGET/.virtbackup-trial.HOST      a line of text; it stays, since nobody may remove it
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from virtbackup_async.errors import StorageError
from virtbackup_async.events import Finding, Level
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository import Storage, is_append_only, open_storage

CHECK: Final = "target"
_CONTENT: Final = b"virtbackup doctor tries to change this file, and must be refused.\n"
_OTHER: Final = b"This file was changed: the target is not append-only.\n"
_ADVICE: Final = (
    "Give this host a writer's key; `virtbackup config protect` prints what the target needs."
)


def check_append_only(target: StorageLocation, host: str, *, expected: bool) -> list[Finding]:
    """Try to overwrite and to remove a file of a target that only takes new ones. Blocks.

    Args:
        target: the target.
        host: this machine's name.
        expected: whether the configuration says that it only takes new files.

    Returns:
        nothing if neither the configuration nor the target says so: then nothing is tried.
    """
    try:
        if not (expected or is_append_only(target)):
            return []
        done = _done(open_storage(target), f".virtbackup-trial.{host}")
    except (OSError, StorageError) as error:
        message = f"cannot be tried: {error}"
        return [Finding(Level.PROBLEM, CHECK, str(target), message, code="append_only_untried")]
    if done:
        message = f"this host can {' and '.join(done)} files in it, and so can a thief here"
        return [
            Finding(Level.PROBLEM, CHECK, str(target), message, _ADVICE, code="not_append_only")
        ]
    message = "append-only: it refused to overwrite and to remove a file"
    return [Finding(Level.OK, CHECK, str(target), message, code="append_only")]


def _done(storage: Storage, name: str) -> list[str]:
    """Return what could be done, as verbs."""
    with suppress(FileExistsError):
        storage.put_new(name, _CONTENT)
    done = []
    if _is_done(lambda: storage.replace(name, _OTHER)):
        done.append("overwrite")
    if _is_done(lambda: storage.remove(name)) and not storage.exists(name):
        done.append("remove")
    elif done:
        storage.replace(name, _CONTENT)
    return done


def _is_done(deed: Callable[[], None]) -> bool:
    try:
        deed()
    except StorageError:
        return False
    return True

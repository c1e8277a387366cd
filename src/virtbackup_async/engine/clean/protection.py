"""What `clean` must not remove yet, by the clock of the target alone: `protect` of a group.

A host that was broken into can add backups with any dates. Without this, a few of them would take
the places of the real ones in the rules, and the next `clean` would remove those. The time at which
the target stored a package is the target's own, and nobody who may only add files can set it. (A
definition is written anew whenever its backup is verified or pinned, so its time tells less.) ::

    stored lately                      kept, whatever its date says
    dated long before it was stored    kept, and no rule counts it
    dated after it was stored          kept, and no rule counts it

So nothing that the target got within the window is removed. What displaces an older backup has
been in the target for as long as the window: `list` shows it, or, as long as its definition is
missing, each `clean` warns that it belongs to no backup.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from itertools import chain
from typing import Final

from msgspec import Struct

from virtbackup_async.catalog.scanning import FoundBackup
from virtbackup_async.config.schema import Group
from virtbackup_async.files.refusals import storage_error
from virtbackup_async.model.amounts import age
from virtbackup_async.model.packager import package_files
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.model.target_file import TargetFile
from virtbackup_async.repository import modified_times, open_storage

CONTRADICTED: Final = "its date contradicts the target's clock, does not count"
LONGEST_BACKUP_S: Final = 2 * 86400.0
"""A backup is dated when it began, and its package complete when it ended."""
CLOCK_SKEW_S: Final = 3600.0


class Protection(Struct, frozen=True):
    """The window, and when the target stored each definition.

    Attributes:
        window_s: how long whatever the target got is kept.
        now_s: the target's time.
        stored_s: when it stored the packages, by its own time; of each by its definition.
    """

    window_s: float = 0.0
    now_s: float = 0.0
    stored_s: Mapping[TargetFile, float] = {}

    def reason(self, found: FoundBackup) -> str | None:
        """Return why a backup must stay; None if the window does not protect it."""
        stored_s = self.stored_s.get(found.path)
        if stored_s is None or self.now_s - stored_s >= self.window_s:
            return None
        return f"protected: stored {age(max(self.now_s - stored_s, 0))} ago"

    def contradicts(self, found: FoundBackup) -> bool:
        """Return whether a backup's date cannot be true."""
        stored_s = self.stored_s.get(found.path)
        if stored_s is None:
            return False
        date_s = found.definition.date
        return not stored_s - LONGEST_BACKUP_S <= date_s <= stored_s + CLOCK_SKEW_S


UNPROTECTED: Final = Protection()


def window_of(groups: Iterable[Group], domain: str) -> timedelta | None:
    """Return the longest window of the groups that include a domain; None if none has one."""
    windows = (group.protect for group in groups if group.includes(domain))
    return max((window for window in windows if window is not None), default=None)


def protection_of(
    target: StorageLocation, backups: Sequence[FoundBackup], window: timedelta | None
) -> Protection:
    """Return the protection of some backups; in an object store, by lists. Blocks.

    Raises:
        StorageError: the target cannot be read: then nothing may be removed.
    """
    if window is None or not backups:
        return UNPROTECTED
    storage = open_storage(target)
    files = {found.path: _files(found) for found in backups}
    try:
        now_s = storage.clock(backups[0].path.parent.stored_name)
        times = modified_times(storage, chain.from_iterable(files.values()))
    except OSError as error:
        raise storage_error("read", str(target), error) from error
    stored = {path: _stored_s(path, own, times) or now_s for path, own in files.items()}
    return Protection(window.total_seconds(), now_s, stored)


def _files(found: FoundBackup) -> list[str]:
    """Return the names of a backup's definition and of the files of its package."""
    directory = found.path.parent
    names = package_files(found.definition)
    return [found.path.stored_name, *((directory / name).stored_name for name in names)]


def _stored_s(path: TargetFile, files: Sequence[str], times: Mapping[str, float]) -> float:
    """Return when a package was complete; 0 if it is gone, or the storage does not know."""
    package = (times.get(name, 0.0) for name in files if name != path.stored_name)
    return max(package, default=0.0) or times.get(path.stored_name, 0.0)

"""The encrypted repositories that this process has opened: a key slot is opened once.

Everything above the storages opens a target's storage for each thing that it does. Opening an
encrypted one costs as much as reading some files, so it is done again only if the repository file
or the key file has changed since.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from threading import Lock
from typing import Final

from virtbackup_async.repository.storage.interface import Storage
from virtbackup_async.repository.storage.key_file import stamp_of
from virtbackup_async.repository.storage.layout import REPOSITORY_FILE, Repository

_MAX_KEPT: Final = 64
_turn: Final = Lock()
_kept: Final[OrderedDict[tuple[Storage, Path], tuple[Hashable, Repository]]] = OrderedDict()


def find_once(
    storage: Storage, key_file: Path, find: Callable[[], Repository | None]
) -> Repository | None:
    """Return what ``find`` returns, or returned while nothing changed since. Blocks.

    Args:
        storage: of the target, not sealed.
        key_file: opens the repository.
        find: finds it, and opens it.
    """
    place = (storage, key_file)
    stamp = _stamp(storage, key_file)
    with _turn:
        known = _kept.get(place)
        if known is not None and stamp is not None and known[0] == stamp:
            _kept.move_to_end(place)
            return known[1]
    found = find()
    with _turn:
        _kept.pop(place, None)
        if found is not None and stamp is not None:
            _kept[place] = (stamp, found)
            if len(_kept) > _MAX_KEPT:
                _kept.popitem(last=False)
    return found


def _stamp(storage: Storage, key_file: Path) -> Hashable:
    stamp = stamp_of(key_file)
    try:
        return None if stamp is None else (stamp, storage.status(REPOSITORY_FILE).version)
    except FileNotFoundError:
        return None

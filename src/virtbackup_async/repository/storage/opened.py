"""The encrypted repositories that this process has opened: a key slot is opened once.

Everything above the storages opens a target's storage for each thing that it does. Opening an
encrypted one costs as much as reading some files, so it is done again only if the repository file
or a key file has changed since.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from threading import Lock
from typing import Final

from msgspec import Struct

from virtbackup_async.repository.storage.interface import Storage
from virtbackup_async.repository.storage.key_file import stamp_of
from virtbackup_async.repository.storage.layout import REPOSITORY_FILE, Repository

_MAX_KEPT: Final = 64
_turn: Final = Lock()
_kept: Final[OrderedDict[tuple[Storage, "Opening"], tuple[Hashable, Repository]]] = OrderedDict()


class Opening(Struct, frozen=True):
    """What a repository is opened with: what a ``StorageLocation`` says of its keys."""

    key_file: Path | None
    sealed_for: Path | None
    held_key: str | None


def find_once(
    storage: Storage, opening: Opening, find: Callable[[], Repository | None]
) -> Repository | None:
    """Return what ``find`` returns, or returned while nothing changed since. Blocks.

    Args:
        storage: of the target, not sealed.
        opening: what opens the repository.
        find: finds it, and opens it.
    """
    place = (storage, opening)
    stamp = _stamp(storage, opening)
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


def forget_opened(held_key: str) -> None:
    """Forget what was opened with a key that this process held."""
    with _turn:
        for place in [place for place in _kept if place[1].held_key == held_key]:
            del _kept[place]


def _stamp(storage: Storage, opening: Opening) -> Hashable:
    files = () if opening.held_key is not None else (opening.key_file,)
    stamps = [stamp_of(path) for path in (*files, opening.sealed_for) if path is not None]
    try:
        return None if None in stamps else (*stamps, storage.status(REPOSITORY_FILE).version)
    except FileNotFoundError:
        return None

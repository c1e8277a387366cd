"""When files of a target were stored: by lists of directories, where a list says that."""

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from virtbackup_async.repository.storage.interface import Storage


@runtime_checkable
class ListsTimes(Protocol):
    """A storage whose lists say when each file was stored."""

    def modified_times(self, names: Iterable[str]) -> dict[str, float]:
        """Return when the content of some files was stored, by the storage's time.

        A missing one is not in the result.

        Raises:
            StorageError: a directory cannot be read.
        """


def modified_times(storage: Storage, names: Iterable[str]) -> dict[str, float]:
    """Return when the content of some files was stored; without lists, each file is asked. Blocks.

    Raises:
        StorageError: the storage cannot find out.
    """
    if isinstance(storage, ListsTimes):
        return storage.modified_times(names)
    found = {}
    for name in names:
        try:
            found[name] = storage.status(name).modified_s
        except FileNotFoundError:
            continue
    return found

"""Finds the sealed keys of runs in a repository, for whoever opens or checks its chunks."""

from contextlib import suppress
from typing import Final

from virtbackup_async.errors import CorruptError
from virtbackup_async.repository.keys.pack_keys import is_run_key
from virtbackup_async.repository.storage.interface import Storage
from virtbackup_async.repository.storage.run_keys import by_run, run_key_names

_MAX_BYTES: Final = 4096


class RunKeyFiles:
    """Finds the keys of runs in a storage. For several threads."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._names: dict[bytes, list[str]] = {}
        self._missed: set[bytes] = set()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RunKeyFiles) and self._storage == other._storage

    def __hash__(self) -> int:
        return hash(self._storage)

    def __call__(self, run: bytes) -> bytes | None:
        """Return the first good file of a run; None if there is none. Blocks.

        Raises:
            StorageError: the files cannot be listed or read.
        """
        found = self._read(run)
        if found is None and run not in self._missed:
            # Written since the names were listed, or under another token now.
            self._names = by_run(run_key_names(self._storage))
            found = self._read(run)
            if found is None:
                self._missed.add(run)
        return found

    def _read(self, run: bytes) -> bytes | None:
        for name in self._names.get(run, ()):
            with suppress(CorruptError, FileNotFoundError):
                data = self._storage.read(name, _MAX_BYTES)
                if data is not None and is_run_key(data, run):
                    return data
        return None

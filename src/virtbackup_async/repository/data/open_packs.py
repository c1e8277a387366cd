"""The packs that are read at the moment: opened once, used by several threads at once.

Called by readers and checks. Invariant: no lock is held while a storage opens, reads or closes a
file, and no file is closed while a thread reads it.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Final

from virtbackup_async.repository.format import pack_format
from virtbackup_async.repository.storage.interface import StoredFile
from virtbackup_async.repository.storage.layout import Repository, pack_file

MAX_OPEN_PACKS: Final = 16


class _OpenPack:
    """A pack, and how many threads use it."""

    def __init__(self) -> None:
        self.opening = Lock()
        self.file: StoredFile | None = None
        self.users = 0


class OpenPacks:
    """The packs that were used last; ``close`` them when no thread reads any more."""

    def __init__(self, repository: Repository, most: int = MAX_OPEN_PACKS) -> None:
        self._repository = repository
        self._most = most
        self._packs: OrderedDict[bytes, _OpenPack] = OrderedDict()
        self._turn = Lock()

    @contextmanager
    def opened(self, pack: bytes) -> Iterator[StoredFile]:
        """Keep a pack open as long as the block runs. Blocks.

        Raises:
            FileNotFoundError: it is missing.
            NewerVersionError: a newer program wrote it.
            CorruptError: it is another one.
            OSError: it cannot be opened.
        """
        with self._turn:
            found = self._packs.setdefault(pack, _OpenPack())
            self._packs.move_to_end(pack)
            found.users += 1
        try:
            with found.opening:
                if found.file is None:
                    found.file = self._open(pack)
                file = found.file
            yield file
        finally:
            with self._turn:
                found.users -= 1
                unused = self._take_unused()
            _close(unused)

    def close(self) -> None:
        """Close all packs. Blocks."""
        with self._turn:
            packs, self._packs = list(self._packs.values()), OrderedDict()
        _close(packs)

    def _open(self, pack: bytes) -> StoredFile:
        file = self._repository.storage.open(pack_file(pack))
        try:
            head = file.read(pack_format.HEAD_BYTES, 0)
            if pack_format.is_whole_head(head):
                version = self._repository.sealing.shape.version
                pack_format.check_head(head, self._repository.id, pack, version)
        except BaseException:
            file.close()
            raise
        return file

    def _take_unused(self) -> list[_OpenPack]:
        """Remove the packs that were used least recently, and return them."""
        unused = []
        for name, pack in list(self._packs.items()):
            if len(self._packs) <= self._most:
                break
            if not pack.users:
                unused.append(self._packs.pop(name))
        return unused


def _close(packs: list[_OpenPack]) -> None:
    for pack in packs:
        if pack.file is not None:
            pack.file.close()

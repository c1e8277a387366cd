"""Where the files of a repository lie, to be looked at and damaged."""

from pathlib import Path

from virtbackup_async.repository import Repository
from virtbackup_async.repository.storage.layout import DIRECTORY, pack_file
from virtbackup_async.repository.storage.local import LocalStorage


class RepositoryFiles:
    """The paths of a repository on this machine."""

    def __init__(self, storage: LocalStorage) -> None:
        self._storage = storage
        self.root = storage.path(DIRECTORY)
        self.packs = self.root / "packs"
        self.index = self.root / "index"
        self.leases = self.root / "leases"
        self.pending_deletion = self.root / "condemned"
        self.damaged = self.root / "damaged"

    def pack(self, pack: bytes) -> Path:
        """The path of a pack."""
        return self._storage.path(pack_file(pack))


def files_of(repository: Repository) -> RepositoryFiles:
    """The files of a repository in a directory."""
    assert isinstance(repository.storage, LocalStorage)
    return RepositoryFiles(repository.storage)

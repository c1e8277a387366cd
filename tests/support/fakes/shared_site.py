"""A target whose backups are in a repository, and damage to its files."""

from collections.abc import Sequence
from pathlib import Path

from fakes.repository_files import files_of
from fakes.site import DAY_S, Site
from fakes.small_repository import PACKAGER, content
from fakes.stored_backup import DATE, StoredBackup
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository.storage.layout import Repository, list_packs
from virtbackup_async.repository.storage.repository_file import find_repository


class SharedSite(Site):
    """A site whose backups are in a repository."""

    async def store_chunks(
        self, chunks: Sequence[int], domain: str = "web", day: int = 0
    ) -> StoredBackup:
        """Put a backup of an image of numbered chunks into the repository."""
        (self.root / "of.raw").write_bytes(content(chunks))
        return await self.store(PACKAGER, domain, DATE + day * DAY_S, "of.raw")

    @property
    def repository(self) -> Repository:
        """The repository as it is now."""
        repository = find_repository(StorageLocation.of(self.target))
        assert repository
        return repository

    @property
    def packs(self) -> list[Path]:
        """The packs, those of the first backup first."""
        repository = self.repository
        paths = [files_of(repository).pack(pack) for pack in list_packs(repository.storage)]
        return sorted(paths, key=lambda path: path.stat().st_mtime_ns)


def flip(path: Path, at: int) -> None:
    """Flip a bit of one byte."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)

"""A host with two targets, and the copies of backups from one into the other."""

from pathlib import Path
from typing import Any

from fakes.site import Site
from fakes.stored_backup import StoredBackup
from virtbackup_async.catalog import definition_file
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.engine.copy.selection import CopyRequest
from virtbackup_async.engine.copy.session import CopyRun, run_copy
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.model.backup import Definition
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.packagers.registry import open_reader


class CopySite(Site):
    """A site whose backups go from ``target`` into ``other``."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.other = root / "other"
        self.other.mkdir(exist_ok=True)

    async def copy(self, *words: str, to: str | Path | None = None, **request: Any) -> CopyRun:
        """Copy backups; all, if no words name some."""
        runtime = self.runtime(request.pop("config", None))
        # Signs of locks are the host's: another run of the tests may copy a domain of this name.
        request.setdefault("wait_s", 60)
        return await run_copy(runtime, CopyRequest(str(to or self.other), words, **request))

    def copied(self, stored: StoredBackup) -> Definition:
        """The definition of a backup's copy."""
        path = self.other / stored.domain / stored.path.name
        return definition_file.loads(path.read_bytes(), path)

    async def listed(self) -> list[str]:
        """The names of the backups in the other target."""
        scan = await Catalog(StorageLocation.of(self.other)).scan()
        assert not scan.problems
        return [found.definition.name for found in scan.complete]

    async def content(self, definition: Definition, file: str | None = None) -> bytes:
        """The bytes of a disk in a copy, ``vda`` unless a file is named."""
        directory = self.other / definition.domain_name
        content = bytearray()
        async with (
            open_reader(definition.packager, directory, definition.name, BufferPool()) as package,
            package.open_disk(file or definition.disks["vda"]) as stream,
        ):
            content += bytes(stream.size_bytes)
            async for piece in stream.pieces():
                for extent in piece.ranges:
                    start = extent.start - piece.offset
                    content[extent.start : extent.end] = piece.data[start : start + extent.length]
            assert stream.digest == definition.records["vda"].image.digest or file
        return bytes(content)

    def left_over(self) -> list[str]:
        """The names of all files in the other target that are no part of a repository."""
        return sorted(
            path.name
            for path in self.other.rglob("*")
            if path.is_file() and ".virtbackup-repository" not in path.parts
        )

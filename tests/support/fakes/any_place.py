"""Backups of small images at any storage location, made and read by the packager, and damage."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import yaml
from anyio.from_thread import start_blocking_portal

from fakes.site import NOW
from fakes.small_repository import PACKAGER, content
from virtbackup_async.config.loading import load_config
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.engine.verify.repair import RepairRequest, run_repair
from virtbackup_async.events import Event, RepositoryRepaired
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.sinks.sparse import write_sparse
from virtbackup_async.images.sources.file import open_image_stream
from virtbackup_async.model.names import is_temporary
from virtbackup_async.model.packager import Location
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.packagers.codecs.cpu_shares import CpuShares
from virtbackup_async.packagers.repository.map_files import list_maps
from virtbackup_async.packagers.repository.reader import open_reader
from virtbackup_async.packagers.repository.writer import open_writer
from virtbackup_async.repository import (
    Kind,
    Repository,
    Storage,
    find_repository,
    make_repository,
    open_inner,
    prune_repository,
)
from virtbackup_async.repository.prune.prune import Pruned
from virtbackup_async.repository.storage.layout import INDEX, list_packs, pack_file
from virtbackup_async.repository.storage.pending_deletion import read_pending_deletion
from virtbackup_async.repository.storage.run_keys import run_key_names

DOMAIN = "web"


class AnyPlace:
    """A target with a repository, and the backups in it.

    Attributes:
        location: of the target.
        directory: for images, on this machine.
    """

    def __init__(
        self, location: StorageLocation, directory: Path, readable: StorageLocation | None = None
    ) -> None:
        """Prepare.

        Args:
            location: of the target.
            directory: for images.
            readable: of the target as it is restored from, if that takes another key.
        """
        self.location = location
        self.directory = directory
        self._readable = readable or location

    def make(self) -> None:
        """Make the repository, and the directory of the domain."""
        make_repository(self.location).storage.make_directory(DOMAIN)

    @property
    def repository(self) -> Repository:
        """The repository as it is now."""
        found = find_repository(self.location)
        assert found
        return found

    @property
    def raw(self) -> Storage:
        """The files as they are stored, whether they are encrypted or not."""
        return open_inner(self.location)

    async def back_up(self, name: str, chunks: Sequence[int]) -> None:
        """Make a backup of an image of numbered chunks."""
        image = self.directory / f"{name}.image"
        image.write_bytes(content(chunks))
        async with (
            open_writer(self._package(name), CpuShares(1)) as writer,
            open_image_stream(image, BufferPool()) as stream,
        ):
            await writer.add_disk(f"{name}_vda.raw", stream, lambda _: None)
            await writer.finish()

    async def restored(self, name: str) -> bytes:
        """Read a backup back."""
        path = self.directory / f"{name}.restored"
        path.unlink(missing_ok=True)
        async with (
            open_reader(self._package(name, self._readable), BufferPool()) as reader,
            reader.open_disk(f"{name}_vda.raw") as stream,
        ):
            await write_sparse(stream, path, lambda _: None)
        return path.read_bytes()

    def names(self) -> list[str]:
        """The names of the backups whose maps are there."""
        storage = self.repository.storage
        try:
            files = storage.names(DOMAIN, {Kind.FILE})
        except FileNotFoundError:
            return []
        return [name.removesuffix("_vda.raw.map") for name in files]

    def map_file(self, name: str) -> str:
        """The file of a backup's map, as it is stored."""
        storage = self.repository.storage
        sealed = getattr(storage, "_sealed", lambda clear: clear)
        return str(sealed(f"{DOMAIN}/{name}_vda.raw.map"))

    def remove(self, name: str) -> None:
        """Remove a backup, as ``clean`` does before it prunes."""
        self.repository.storage.remove(f"{DOMAIN}/{name}_vda.raw.map")

    def prune(self) -> Pruned | None:
        """Prune the repository by the maps of its target, if there is one."""
        repository = find_repository(self.location)
        if repository is None:
            return None
        return prune_repository(repository, partial(list_maps, repository.storage), lambda: None)

    def repair(self) -> list[RepositoryRepaired]:
        """Run the ``repair`` command, and return what came of it."""
        path = self.directory / "config.yml"
        group = {"hosts": ["r:.*"], "target": "/nonexistent"}
        path.write_text(yaml.safe_dump({"groups": {"all": group}}))
        config = load_config(path)
        (group_of_all,) = config.groups.values()
        groups = {"all": replace(group_of_all, target=self.location)}
        events: list[Event] = []
        runtime = Runtime(replace(config, groups=groups), events.append, now=lambda: NOW)
        with start_blocking_portal() as portal:
            portal.call(partial(run_repair, runtime, RepairRequest()))
        return [event for event in events if isinstance(event, RepositoryRepaired)]

    def packs(self) -> list[str]:
        """The files of all packs."""
        return sorted(map(pack_file, list_packs(self.raw)))

    def segments(self) -> list[str]:
        """The files of all segments of the index, as they are stored."""
        found = self.raw.names(INDEX, {Kind.FILE})
        return [f"{INDEX}/{name}" for name in found if not is_temporary(name)]

    def flip(self, file: str, at: int) -> None:
        """Flip a bit of one byte of a file, as it is stored."""
        data = bytearray(self.raw.read(file, 1 << 24) or b"")
        data[at] ^= 1
        self.raw.replace(file, bytes(data))

    def assert_nothing_leaks(self) -> None:
        """Check that what is left is pruned away when all backups are gone."""
        for name in self.names():
            self.remove(name)
        self.prune()
        assert self.packs() == []
        assert self.segments() == []
        assert run_key_names(self.repository.storage) == []
        assert not read_pending_deletion(self.repository.storage).packs

    def _package(self, name: str, location: StorageLocation | None = None) -> Location:
        return Location(PACKAGER, location or self.location, DOMAIN, name)

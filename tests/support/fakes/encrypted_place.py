"""An encrypted target with its key file, and backups of small images in it."""

from fakes.small_repository import content
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.sinks.sparse import write_sparse
from virtbackup_async.images.sources.file import open_image_stream
from virtbackup_async.model.backup import Packager
from virtbackup_async.model.packager import Location
from virtbackup_async.model.storage_location import LOCAL, StorageLocation
from virtbackup_async.packagers.codecs.cpu_shares import CpuShares
from virtbackup_async.packagers.repository.reader import open_reader
from virtbackup_async.packagers.repository.writer import open_writer
from virtbackup_async.repository import make_repository


class EncryptedPlace:
    """An encrypted target with its key file, and images to store there."""

    def __init__(self, directory, sealed_for=None):
        self.directory = directory
        self.target = directory / "target"
        self.target.mkdir(parents=True, exist_ok=True)
        self.key_file = directory / "key"
        self.location = StorageLocation(
            LOCAL, str(self.target), key_file=self.key_file, sealed_for=sealed_for
        )

    def make(self):
        repository = make_repository(self.location)
        for domain in ("web", "db"):
            repository.storage.make_directory(domain)
        return repository

    async def back_up(self, domain, name, chunks):
        image = self.directory / "image"
        image.write_bytes(content(chunks))
        package = Location(Packager("repository", {}), self.location, domain, name)
        async with (
            open_writer(package, CpuShares(1)) as writer,
            open_image_stream(image, BufferPool()) as stream,
        ):
            await writer.add_disk(f"{name}_vda.raw", stream, lambda _: None)
            await writer.finish()

    async def restored(self, domain, name, location=None):
        location = location or self.location
        package = Location(Packager("repository", {}), location, domain, name)
        path = self.directory / "restored"
        path.unlink(missing_ok=True)
        async with (
            open_reader(package, BufferPool()) as reader,
            reader.open_disk(f"{name}_vda.raw") as stream,
        ):
            await write_sparse(stream, path, lambda _: None)
        return path.read_bytes()

    async def copied(self, domain, name, source):
        """Copy a backup from another place, as ``copy`` does."""
        there = Location(Packager("repository", {}), source, domain, name)
        here = Location(Packager("repository", {}), self.location, domain, name)
        file = f"{name}_vda.raw"
        async with (
            open_reader(there, BufferPool()) as reader,
            open_writer(here, CpuShares(1)) as writer,
        ):
            assert await writer.take_image(file, reader, file, lambda _: None)
            await writer.finish()

    def files(self, below=""):
        """The paths of all files in the target, by what they hold."""
        return sorted(path for path in (self.target / below).rglob("*") if path.is_file())

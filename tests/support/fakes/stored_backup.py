"""Complete backups on disk, as the engine leaves them: real packages, real definitions."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

from virtbackup_async.catalog import definition_file
from virtbackup_async.catalog.checksum import checksum_of
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.sources.file import open_image_stream
from virtbackup_async.images.stream import DiskStream
from virtbackup_async.model.backup import (
    Definition,
    DiskRecord,
    ImageRecord,
    Packager,
    StateRecord,
)
from virtbackup_async.model.names import state_file
from virtbackup_async.model.packager import Location
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.packagers.codecs.cpu_shares import CpuShares
from virtbackup_async.packagers.interface import PackageWriter
from virtbackup_async.packagers.registry import open_writer

MIB = 1 << 20
DATA_BYTES = MIB // 4
DATE = int(datetime(2026, 3, 1, 2, 15, tzinfo=UTC).timestamp())


class StoredBackup:
    """A backup of one raw disk, ``vda``: 256 KiB of random data behind a hole of one MiB."""

    def __init__(self, target: Path, packager: Packager, domain: str = "web", date: int = DATE):
        self.packager = packager
        self.domain = domain
        self.date = date
        self.directory = target / domain
        self.directory.mkdir(parents=True, exist_ok=True)
        stamp = datetime.fromtimestamp(date).astimezone().strftime("%Y%m%d-%H%M%S")
        self.name = f"{stamp}_3_{domain}"
        self.file = f"{self.name}_vda.raw"
        self.path = self.directory / f"{self.name}.json"
        self.definition: Definition | None = None

    @property
    def package(self) -> Path:
        """The one file of the package."""
        return Location.below(self.directory, self.packager, self.name).path(self.file)

    async def make(self, image: Path, variables: Path | None = None) -> "StoredBackup":
        """Back up ``image``, which is made if it is not there, and UEFI variables if there are."""
        if not image.exists():
            with image.open("wb") as file:
                file.seek(MIB)
                file.write(os.urandom(DATA_BYTES))
        async with (
            open_writer(self.packager, self.directory, self.name, CpuShares(2)) as package,
            open_image_stream(image, BufferPool()) as stream,
        ):
            record = await _added(package, self.file, image, stream)
            state = [] if variables is None else [await self._add_state(package, variables)]
            await package.finish()
        self.definition = Definition(
            name=self.name, domain_id=3, domain_name=self.domain, domain_xml="<domain/>",
            disks={"vda": self.file}, version="1.0.0", date=self.date, packager=self.packager,
            records={"vda": DiskRecord(record)}, state_files=tuple(state),
        )  # fmt: skip
        catalog = Catalog(StorageLocation.of(self.directory.parent))
        assert (await catalog.write_definition(self.definition)).local == self.path
        return self

    async def _add_state(self, package: PackageWriter, variables: Path) -> StateRecord:
        async with open_image_stream(variables, BufferPool()) as stream:
            file = state_file(self.name, "nvram", variables.name)
            return StateRecord("nvram", await _added(package, file, variables, stream), "qemu")

    def read(self) -> Definition:
        """The definition as it is on disk now."""
        return definition_file.loads(self.path.read_bytes(), self.path)

    def rewrite(self, text: str) -> None:
        """Put another definition in its place, with the checksum of what it says."""
        raw = json.loads(text)
        raw["checksum"] = checksum_of(raw)
        self.path.write_text(json.dumps(raw))

    def flip(self, share: float = 0.5) -> None:
        """Flip one bit, that far into the package."""
        with self.package.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(int(size * share))
            (byte,) = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte ^ 0x10]))

    def cut(self, share: float = 0.5) -> None:
        """Cut the package off, that far into it."""
        os.truncate(self.package, int(self.package.stat().st_size * share))


async def _added(package: PackageWriter, file: str, image: Path, stream: DiskStream) -> ImageRecord:
    stored = await package.add_disk(file, stream, lambda _: None)
    return ImageRecord(
        file, str(image), "raw", stream.size_bytes, stream.data_bytes, stored, stream.digest
    )

"""How fast the backups in a repository are verified, beside reading each of them back.

    benchmarks/verify_shared.py IMAGE BACKUPS DIRECTORY

IMAGE is backed up that often; each has the chunks of all. Everything is in the page cache. Each
line is a process of its own; bytes are those of all backups' images, holes left out. DIRECTORY is
emptied.
"""

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path

import anyio

from virtbackup_async.catalog.store import Catalog
from virtbackup_async.engine.restore.plan import RestoredImage, plan_restore
from virtbackup_async.engine.restore.read_images import read_back
from virtbackup_async.engine.verify.repository import verify_repository
from virtbackup_async.engine.verify.results import Chosen, Verdicts
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.sources.file import open_image_stream
from virtbackup_async.images.stream import DiskStream
from virtbackup_async.model.backup import Definition, DiskRecord, ImageRecord, Packager
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.packagers.codecs.cpu_shares import CpuShares
from virtbackup_async.packagers.interface import Progress
from virtbackup_async.packagers.registry import open_reader, open_writer

MIB = 1 << 20
DATE = 1772323200
PACKAGER = Packager("repository")


async def store(target: Path, image: Path, number: int) -> None:
    """Make one backup, definition included."""
    date = DATE + number * 86400
    name = f"{datetime.fromtimestamp(date).astimezone():%Y%m%d-%H%M%S}_3_web"
    file = f"{name}_vda.raw"
    directory = target / "web"
    directory.mkdir(parents=True, exist_ok=True)
    async with (
        open_writer(PACKAGER, directory, name, CpuShares()) as package,
        open_image_stream(image, BufferPool()) as stream,
    ):
        stored = await package.add_disk(file, stream, lambda _: None)
        await package.finish()
        record = ImageRecord(
            file, str(image), "raw", stream.size_bytes, stream.data_bytes, stored, stream.digest
        )
    definition = Definition(
        name=name, domain_id=3, domain_name="web", domain_xml="<domain/>", disks={"vda": file},
        version="1.0.0", date=date, packager=PACKAGER, records={"vda": DiskRecord(record)},
    )  # fmt: skip
    await Catalog(StorageLocation.of(target)).write_definition(definition)


async def verify(target: Path) -> None:
    """Verify all backups as the command does."""
    await _verify(target, quick=False)


async def verify_quick(target: Path) -> None:
    """Look whether all is there."""
    await _verify(target, quick=True)


async def _verify(target: Path, *, quick: bool) -> None:
    scan = await Catalog(StorageLocation.of(target)).scan()
    now = datetime.now().astimezone()
    chosen = [Chosen("all", found) for found in scan.complete]
    await verify_repository(target, chosen, Verdicts(now, quick, lambda _event: None))


async def read_all_back(target: Path) -> None:
    """Read each backup back, as a restore does."""
    for found in (await Catalog(StorageLocation.of(target)).scan()).complete:
        definition, directory = found.definition, found.path.parent
        reader = open_reader(PACKAGER, directory, definition.name, BufferPool())
        async with reader as package:
            for disk in plan_restore(definition).disks:
                await read_back(disk, package, _drop, "web", lambda _event: None)


async def _drop(_image: RestoredImage, stream: DiskStream, _on_progress: Progress) -> None:
    async for _chunk in stream.pieces():
        pass


STEPS: dict[str, Callable[[Path], Awaitable[None]]] = {
    "verify": verify,
    "quick": verify_quick,
    "read-back": read_all_back,
}


def measure(step: str, target: Path, data_bytes: int) -> None:
    """Run one step, and say how long it took and how much memory."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start_s = time.monotonic()
    argv = [sys.executable, "-m", "benchmarks.verify_shared", step, str(target)]
    subprocess.run(argv, check=True)
    taken_s = time.monotonic() - start_s
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(
        f"{step:<10} {taken_s:6.2f} s, {data_bytes / taken_s / 1e6:7.0f} MB/s, "
        f"{cpu_s:6.2f} s of CPU; load {os.getloadavg()[0]:.1f}",
        flush=True,
    )


def main() -> None:
    """Make the backups, and verify them in each way, three times."""
    image, backups, target = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    shutil.rmtree(target, ignore_errors=True)
    for number in range(backups):
        anyio.run(store, target, image, number)
    data_bytes = sum(
        image.data_bytes
        for found in anyio.run(Catalog(StorageLocation.of(target)).scan).complete
        for image in found.definition.images
    )
    for _ in range(3):
        for step in STEPS:
            measure(step, target, data_bytes)


if __name__ == "__main__":
    if sys.argv[1] in STEPS:
        anyio.run(STEPS[sys.argv[1]], Path(sys.argv[2]))
        # Not ru_maxrss, which begins with what the parent had.
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        (peak,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
        print(peak, flush=True)
    else:
        main()

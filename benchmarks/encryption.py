"""What encryption costs: an image stored in a repository, encrypted, sealed and neither, and read.

    benchmarks/encryption.py IMAGE DIRECTORY [--rounds 7] [--only store]

All three take turns, in the other order each round, each in a process of its own and a repository
of its own. Prints medians, wall and processor time, and the medians of the rounds' ratios to a
repository that is not encrypted. DIRECTORY is emptied. The image had best be in the page cache, and
hold what disks hold: what cannot be compressed makes the most work for the cipher, and the least
for everything else.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anyio
from msgspec.structs import replace

from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.sources.file import open_image_stream
from virtbackup_async.model.backup import Packager
from virtbackup_async.model.packager import Location
from virtbackup_async.model.storage_location import LOCAL, StorageLocation
from virtbackup_async.packagers.codecs.cpu_shares import CpuShares
from virtbackup_async.packagers.repository.reader import open_reader
from virtbackup_async.packagers.repository.writer import open_writer
from virtbackup_async.repository import (
    hold_key,
    key_of_paper,
    make_repository,
    new_paper,
    written_on_paper,
)

KINDS = ("plain", "encrypted", "sealed")
PAPER = "paper"


@dataclass(frozen=True)
class Taken:
    """How long a process took: by the clock, and of all processors."""

    wall_s: float
    processor_s: float


def package(directory: Path, kind: str) -> Location:
    """The package of a round."""
    location = StorageLocation(LOCAL, str(directory / "target"))
    if kind != "plain":
        location = replace(location, key_file=directory / "key")
    if kind == "sealed":
        location = replace(location, sealed_for=directory / "public")
    return Location(Packager("repository", {}), location, "web", "first")


async def store(directory: Path, kind: str, image: Path) -> None:
    """Make the repository, and store an image in it."""
    place = package(directory, kind)
    if kind == "sealed":
        paper = written_on_paper(new_paper(directory / "public"))
        (directory / PAPER).write_text(paper)
    make_repository(place.target).storage.make_directory("web")
    async with (
        open_writer(place, CpuShares()) as writer,
        open_image_stream(image, BufferPool()) as stream,
    ):
        await writer.add_disk("first_vda.raw", stream, lambda _: None)
        await writer.finish()


async def read(directory: Path, kind: str, _image: Path) -> None:
    """Read the image back, and check it."""
    place = package(directory, kind)
    if kind == "sealed":
        held_key = hold_key(key_of_paper((directory / PAPER).read_text()))
        place = replace(place, target=replace(place.target, held_key=held_key))
    async with (
        open_reader(place, BufferPool()) as reader,
        reader.open_disk("first_vda.raw") as stream,
    ):
        async for _ in stream.pieces():
            pass


CASES: dict[str, Callable[[Path, str, Path], object]] = {"store": store, "read": read}


def taken_by(case: str, kind: str, image: Path, directory: Path) -> Taken:
    """How long a process takes for a case."""
    if case == "store":
        shutil.rmtree(directory, ignore_errors=True)
        (directory / "target").mkdir(parents=True)
    os.sync()
    before, start_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    argv = [sys.executable, __file__, "--in-process", case, kind, str(image), str(directory)]
    subprocess.run(argv, check=True)
    wall_s, after = time.monotonic() - start_s, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor_s = sum(
        getattr(after, name) - getattr(before, name) for name in ("ru_utime", "ru_stime")
    )
    return Taken(wall_s, processor_s)


def measure(case: str, image: Path, directory: Path, rounds: int) -> None:
    """Measure a case, and print it."""
    found: dict[str, list[Taken]] = {kind: [] for kind in KINDS}
    for number in range(rounds):
        for kind in KINDS if number % 2 else reversed(KINDS):
            found[kind].append(taken_by(case, kind, image, directory / kind))
    for name, of in (("wall", "wall_s"), ("processor", "processor_s")):
        plain = [getattr(each, of) for each in found["plain"]]
        print(f"{case:<6} {name:<10} plain      {statistics.median(plain):.2f} s")
        for kind in KINDS[1:]:
            taken = [getattr(each, of) for each in found[kind]]
            ratios = [b / a for a, b in zip(plain, taken, strict=True)]
            ratio, spread = statistics.median(ratios), f"{min(ratios):.3f} to {max(ratios):.3f}"
            median = statistics.median(taken)
            print(f"{case:<6} {name:<10} {kind:<10} {median:.2f} s, ratio {ratio:.3f} ({spread})")


def main() -> None:
    """Measure each case, or be the process that is measured."""
    if sys.argv[1:2] == ["--in-process"]:
        case, kind, image, directory = sys.argv[2:]
        anyio.run(CASES[case], Path(directory), kind, Path(image))
        return
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("image", type=Path)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", choices=CASES)
    options = parser.parse_args()
    for case in [options.only] if options.only == "store" else CASES:
        measure(case, options.image, options.directory, options.rounds)
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()

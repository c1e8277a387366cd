"""What the benchmarks run on: one guest of the lab with a real file system, and paused ones.

All of it is below the lab's root, targets and images on one file system, and ends with it.

::

    ROOT/images/     the disks' images
    ROOT/bench/      configurations, targets, outputs, mount points of the contenders

The content is this machine's own files: programs, documents and libraries compress as a server's
disk does; zeros or random numbers would not.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.race import say
from lab.disks import DiskSpec
from lab.domains import LabDomain, define, running
from lab.libvirt_root import Daemon, open_daemon

MIB = 1 << 20
GIB = 1 << 30
GUEST = "web-1"
_TREES = ("/usr/bin", "/usr/share", "/usr/lib")
_FILES_PER_DIRECTORY = 500
_BLOCK_BYTES = 4096


@dataclass(frozen=True)
class Sizes:
    """How much data there is, in MiB.

    Attributes:
        vda: in the guest's first disk, for what is fast.
        vdb: in its second, for gzip and bzip2.
        vdc: in its third, for xz.
        sparse: in the huge raw disk and in its dense twin.
        small: in each of the many small domains.
        domains: how many of these.
    """

    vda: int = 1024
    vdb: int = 256
    vdc: int = 64
    sparse: int = 1024
    small: int = 64
    domains: int = 20


QUICK = Sizes(vda=192, vdb=32, vdc=8, sparse=64, small=16, domains=6)


@dataclass(frozen=True)
class World:
    """A running daemon, a directory to write to, and the sizes."""

    daemon: Daemon
    place: Path
    sizes: Sizes


@contextmanager
def open_world(sizes: Sizes) -> Iterator[World]:
    """A private libvirt; what is made in it goes with it."""
    with open_daemon() as daemon:
        place = daemon.path / "bench"
        place.mkdir(mode=0o700)
        yield World(daemon, place, sizes)


@contextmanager
def open_guest(world: World) -> Iterator[LabDomain]:
    """The guest: booted, its agent answering, three disks of different fullness."""
    say("filling the guest's disks with this machine's files, and booting it")
    sizes = {"vda": world.sizes.vda, "vdb": world.sizes.vdb, "vdc": world.sizes.vdc}
    with ExitStack() as cleanup:
        disks = []
        for dev, mib in sizes.items():
            content = world.place / f"content-{dev}"
            cleanup.callback(shutil.rmtree, content, ignore_errors=True)
            gather_files(content, mib * MIB)
            disks.append(DiskSpec(dev, size_bytes=4 * mib * MIB, content=content))
        guest = cleanup.enter_context(running(world.daemon, GUEST, disks))
        yield guest


def gather_files(content: Path, length_bytes: int) -> None:
    """Make a directory of about so many bytes of this machine's files, linked where they can be."""
    share = length_bytes // len(_TREES)
    chosen = [file for tree in _TREES for file in _fitting(Path(tree), share)]
    for number, file in enumerate(chosen):
        place = content / f"{number // _FILES_PER_DIRECTORY:03}" / f"{number:06}"
        place.parent.mkdir(parents=True, exist_ok=True)
        _link(file, place)


def _fitting(tree: Path, length_bytes: int) -> Iterator[Path]:
    """The tree's first files that take so many bytes together, in blocks of a file system."""
    for file in _regular_files(tree):
        taken = -(-file.stat().st_size // _BLOCK_BYTES) * _BLOCK_BYTES
        if taken <= length_bytes:
            length_bytes -= taken
            yield file
        if length_bytes < _BLOCK_BYTES:
            return


def _regular_files(tree: Path) -> Iterator[Path]:
    for directory, below, names in os.walk(tree):
        below.sort()
        for name in sorted(names):
            file = Path(directory, name)
            if file.is_file() and not file.is_symlink() and os.access(file, os.R_OK):
                yield file


def _link(file: Path, place: Path) -> None:
    try:
        place.hardlink_to(file)
    except OSError:  # another file system
        shutil.copyfile(file, place)


def content_file(world: World, length_bytes: int) -> Path:
    """A file of so many bytes of this machine's files, end to end; kept for the next who asks."""
    place = world.place / "content"
    if place.exists() and place.stat().st_size >= length_bytes:
        return place
    with place.open("wb") as content:
        while content.tell() < length_bytes:
            for file in _regular_files(Path(_TREES[-1])):
                if content.tell() >= length_bytes:
                    break
                content.write(file.read_bytes())
    return place


@contextmanager
def paused(world: World, name: str, disks: Sequence[DiskSpec]) -> Iterator[LabDomain]:
    """A domain to be filled, then started by ``start_paused``; undefined on leaving.

    QEMU runs while its CPU does not: snapshots and commits are real, and it takes no time from
    what is measured.
    """
    domain = define(world.daemon, name, disks, agent=False, memory_mib=64)
    try:
        yield domain
    finally:
        domain.undefine()


def start_paused(domain: LabDomain) -> None:
    """Start it so; its images are filled."""
    domain.root.virsh("start", domain.name, "--paused")

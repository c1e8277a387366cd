"""Incremental backups into a repository: the whole command, by size of disk and of change.

The domains are paused; their disks are written to as a guest would.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks import contenders as by
from benchmarks.cases import Bench
from benchmarks.contenders import Work
from benchmarks.measure import run
from benchmarks.race import Contender, say
from benchmarks.world import GIB, MIB, World, content_file, paused, start_paused
from lab.disks import DiskSpec
from lab.domains import LabDomain
from lab.process import run as run_tool

SIZES_GIB = (4, 100)
NOTHING, CHANGED = "{} GiB, nothing changed", "{} GiB, 64 MiB changed"
_CHANGED_BYTES = 64 * MIB


def incremental(bench: Bench) -> None:
    """What a nightly backup takes: nothing changed, and 64 MiB of another content."""
    contenders: list[Contender] = []
    with _domain(bench.world, SIZES_GIB[0]) as small, _domain(bench.world, SIZES_GIB[1]) as large:
        for size_gib, domain in zip(SIZES_GIB, (small, large), strict=True):
            work = Work(f"incremental-{size_gib}", "repository", {"all": [domain.name]})
            ours = replace(by.our_backup(bench.world, work), output=None)
            say(f"first backup of {size_gib} GiB")
            run(ours.argv)
            change = partial(_change, domain, content_file(bench.world, 0))
            contenders += [
                replace(ours, name=NOTHING.format(size_gib)),
                replace(ours, name=CHANGED.format(size_gib), setup=change),
            ]
        about = (
            f"Whole command; qcow2 disks that hold {bench.world.sizes.vda} MiB of files, "
            "audited by 1 %."
        )
        bench.run("incremental", about, contenders)


@contextmanager
def _domain(world: World, size_gib: int) -> Iterator[LabDomain]:
    content = content_file(world, world.sizes.vda * MIB)
    disk = DiskSpec("vda", size_bytes=size_gib * GIB, fs=None)
    with paused(world, f"nightly-{size_gib}", [disk]) as domain:
        image = domain.image("vda")
        run_tool("qemu-img", "convert", "-f", "raw", "-O", "qcow2", content, image)
        run_tool("qemu-img", "resize", "-q", "-f", "qcow2", image, f"{size_gib}G")
        start_paused(domain)
        yield domain


def _change(domain: LabDomain, content: Path) -> None:
    """Write 64 MiB from another place of the content each time."""
    piece = content.with_name("piece")
    with content.open("rb") as file:
        at = int.from_bytes(os.urandom(4), "little") % (content.stat().st_size - _CHANGED_BYTES)
        file.seek(at)
        piece.write_bytes(file.read(_CHANGED_BYTES))
    domain.qemu_io("vda", f"write -s {piece} 1G 64M")
    domain.qemu_io("vda", "flush")


INCREMENTAL_CASES: dict[str, Callable[[Bench], None]] = {"incremental": incremental}

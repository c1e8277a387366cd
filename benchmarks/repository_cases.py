"""What only a repository has: two guests with much in common, and 10 TB of chunks."""

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import contenders as by
from benchmarks import huge_repository
from benchmarks.cases import Bench
from benchmarks.contenders import Work
from benchmarks.race import Contender, say
from benchmarks.world import MIB, QUICK, World, gather_files, paused, start_paused
from lab.disks import DiskSpec

FIRST, TWIN, BOTH = "one guest", "its twin", "both"
CLONED, SHUFFLED = "twins repository", "shuffled twins repository"
QUICK_CHUNKS = 1_000_000
_ALIKE = 0.8


def twins(bench: Bench) -> None:
    """Two guests of one distribution: most files the same, laid out alike, or in another order."""
    for title, order in ((CLONED, 1), (SHUFFLED, -1)):
        with _twins(bench.world, order) as names:
            contenders = [
                by.our_backup(
                    bench.world,
                    Work(f"twins-{order}-{contender}", "repository", {"all": list(hosts)}),
                    contender,
                )
                for contender, hosts in ((FIRST, names[:1]), (TWIN, names[1:]), (BOTH, names))
            ]
            about = (
                f"Two paused guests, each a file system of {bench.world.sizes.vda // 2} MiB of "
                f"files: {_ALIKE:.0%} the same ones in both, copied in "
                f"{'the same' if order == 1 else 'another'} order, and the rest its own."
            )
            bench.run(title, about, contenders, rounds=1)


@contextmanager
def _twins(world: World, order: int) -> Iterator[list[str]]:
    say("making two guests of the same files")
    place = world.place / "content-twins"
    mib = world.sizes.vda // 2
    gather_files(place / "all", mib * MIB)
    files = sorted(path for path in (place / "all").rglob("*") if path.is_file())
    alike = int(len(files) * _ALIKE)
    trees = [place / "first", place / "second"]
    own = [files[alike::2], files[alike + 1 :: 2]]
    try:
        for tree, chosen in zip(
            trees, (files[:alike] + own[0], (files[:alike] + own[1])[::order]), strict=True
        ):
            _lay_out(tree, chosen)
        disks = [DiskSpec("vda", size_bytes=4 * mib * MIB, content=tree) for tree in trees]
        with (
            paused(world, "twin-1", disks[:1]) as first,
            paused(world, "twin-2", disks[1:]) as second,
        ):
            start_paused(first)
            start_paused(second)
            yield ["twin-1", "twin-2"]
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _lay_out(tree: Path, files: list[Path]) -> None:
    """Name files so that a file system made of the tree has them in this order."""
    for number, file in enumerate(files):
        place = tree / f"{number // 500:03}" / f"{number:06}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.hardlink_to(file)


def huge(bench: Bench) -> None:
    """The steps of ``huge_repository.py``, one after the other."""
    chunks = QUICK_CHUNKS if bench.world.sizes == QUICK else huge_repository.CHUNKS
    target = bench.world.place / "huge"
    say(f"making a repository of {chunks} chunks")
    huge_repository.build(target, chunks)
    script = huge_repository.__file__
    steps = [
        Contender(step, [sys.executable, script, step, str(target)], is_ours=True)
        for step in huge_repository.STEPS
    ]
    about = (
        f"{chunks} chunks of 256 KiB, {huge_repository.DISKS} disks, "
        f"{huge_repository.NIGHTS} maps of each."
    )
    try:
        bench.run("huge-repository", about, steps, rounds=1)
    finally:
        shutil.rmtree(target)


REPOSITORY_CASES: dict[str, Callable[[Bench], None]] = {
    "twins": twins,
    "huge-repository": huge,
}

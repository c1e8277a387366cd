"""This program beside another version of itself: has a change made it slower?

    benchmarks/two_checkouts.py OTHER [--mib 1024] [--rounds 7] [--only CASE]

OTHER is the ``virtbackup`` of another checkout's virtual environment. Both take turns, in the other
order each round, on one paused guest of the lab whose disk holds this machine's files. Prints, for
each case, the medians of both and the median of the ratios of the rounds: ours over theirs.
"""

import argparse
import os
import shutil
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Run, run
from benchmarks.world import MIB, Sizes, World, content_file, open_world, paused, start_paused
from lab.disks import DiskSpec

_CONFIG = """\
uri: {uri}
groups:
  bench:
    autostart: true
    target: {target}
    packager: {packager}
    scratch: {scratch}
    hosts: [web]
"""


@dataclass(frozen=True)
class Case:
    """What one round runs: a backup by a packager, into an empty target or again, or a command."""

    packager: str
    command: tuple[str, ...] = ("backup",)
    into_empty: bool = True


CASES: Mapping[str, Case] = {
    "directory": Case("directory"),
    "tar": Case("tar"),
    "zstd": Case("zstd"),
    "repository": Case("repository"),
    "repository again": Case("repository", into_empty=False),
    "verify": Case("repository", ("verify",), into_empty=False),
    "list": Case("repository", ("list",), into_empty=False),
    "version": Case("directory", ("--version",)),
}


@contextmanager
def open_bench(mib: int) -> Iterator[World]:
    """A private libvirt with one paused guest, its only disk filled."""
    with open_world(Sizes()) as world:
        disk = DiskSpec("vda", size_bytes=mib * MIB, format="raw", fs=None)
        with paused(world, "web", [disk]) as domain:
            image = domain.image("vda")
            shutil.copyfile(content_file(world, mib * MIB), image)
            os.truncate(image, mib * MIB)
            start_paused(domain)
            yield world


def measure(world: World, name: str, rounds: int, programs: tuple[Path, Path]) -> None:
    """Let both take turns, and print what they took."""
    case = CASES[name]
    program, other = programs
    runs: dict[Path, list[Run]] = {program: [], other: []}
    for number in range(-1, rounds):
        order = [program, other] if number % 2 else [other, program]
        for who in order:
            target = world.place / f"target-{list(runs).index(who)}"
            if case.into_empty:
                shutil.rmtree(target, ignore_errors=True)
            target.mkdir(exist_ok=True)
            os.sync()
            taken = run(_argv(world, case, who, target))
            if number >= 0:  # the first round warms up
                runs[who].append(taken)
    print(
        f"{name:18}", *(_figures(runs[program], runs[other], part) for part in _PARTS), flush=True
    )


_PARTS: Mapping[str, Callable[[Run], float]] = {
    "wall": lambda taken: taken.wall_s,
    "processor": lambda taken: taken.cpu_s,
}


def _figures(ours: list[Run], theirs: list[Run], part: str) -> str:
    of = _PARTS[part]
    ratio = statistics.median(of(one) / of(two) for one, two in zip(ours, theirs, strict=True))
    mine, other = (statistics.median(map(of, runs)) for runs in (ours, theirs))
    return f"{part} {mine:6.3f} s beside {other:6.3f} s, ratio {ratio:5.3f};"


def _argv(world: World, case: Case, program: Path, target: Path) -> list[str]:
    config = world.place / f"{target.name}-{case.packager}.yml"
    scratch = world.place / "scratch"
    scratch.mkdir(exist_ok=True)
    config.write_text(
        _CONFIG.format(uri=world.daemon.uri, scratch=scratch, target=target, packager=case.packager)
    )
    return [*world.daemon.prefix, str(program), "-c", str(config), *case.command]


def main() -> None:
    """Measure each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", action="append", choices=CASES)
    arguments = parser.parse_args()
    program = Path(sys.executable).with_name("virtbackup")
    with open_bench(arguments.mib) as world:
        for name in arguments.only or CASES:
            measure(world, name, arguments.rounds, (program, arguments.other))


if __name__ == "__main__":
    main()

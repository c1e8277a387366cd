"""The benchmarks without the guest: a huge sparse disk, many domains, a target of many backups.

Their domains are paused: QEMU runs, so that snapshots and commits are real, and takes no time.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import yaml

from benchmarks import contenders as by
from benchmarks import large_page
from benchmarks.cases import Bench
from benchmarks.contenders import Work
from benchmarks.many_backups import build
from benchmarks.race import Contender, say
from benchmarks.world import GIB, MIB, World, content_file, paused, start_paused
from lab import virt_backup
from lab.disks import DiskSpec

SPARSE, DENSE = "100 GiB raw, sparse", "its dense twin"
AT_ONCE, ONE_BY_ONE = "all, threads: 4", "one by one, threads: 1"
THEIRS_AT_ONCE = f"{by.VIRT_BACKUP}, threads: 4"
HELP, LIST, REPORT = "virtbackup --help", "virtbackup list", "virtbackup report"
STATUS, STATS, PLAN = "virtbackup status", "virtbackup stats", "virtbackup clean --dry-run"
BACKUPS = 10_000
_SPARSE_BYTES = 100 * GIB
_EXTENTS = 64
# bzip2 and xz get a small one: what is measured is the price of the holes, not of the data.
_SLOW = {"tar.bz2", "tar.xz"}
_SLOW_SHARE = 16
MEMORY_PACKAGERS = ("directory", "tar", "zstd", "tar.gz", "tar.xz")
_AT_ONCE_FOR_MEMORY = 8


def sparse(bench: Bench) -> None:
    """A raw disk of 100 GiB that holds little, beside a disk that holds the same and is full."""
    for packagers, share in ((by.PACKAGERS.keys() - _SLOW, 1), (_SLOW, _SLOW_SHARE)):
        dense_bytes = bench.world.sizes.sparse * MIB // share
        with _sparse_and_dense(bench.world, dense_bytes) as images:
            for packager in sorted(packagers, key=list(by.PACKAGERS).index):
                _race_sparse(bench, packager, images)


@contextmanager
def _sparse_and_dense(world: World, dense_bytes: int) -> Iterator[list[Path]]:
    disks = [
        DiskSpec("vda", "raw", _SPARSE_BYTES, fs=None),
        DiskSpec("vdb", "raw", dense_bytes, fs=None),
    ]
    with paused(world, "sparse", disks) as domain:
        images = [domain.image("vda"), domain.image("vdb")]
        fill_sparse_and_dense(images[0], images[1], content_file(world, dense_bytes))
        start_paused(domain)
        yield images


def fill_sparse_and_dense(sparse_image: Path, dense_image: Path, content: Path) -> None:
    """Write the same into both: here in extents far from each other, there in one piece."""
    extent_bytes = dense_image.stat().st_size // _EXTENTS
    apart_bytes = sparse_image.stat().st_size // _EXTENTS
    opened = (content.open("rb"), dense_image.open("r+b"), sparse_image.open("r+b"))
    with opened[0] as source, opened[1] as dense, opened[2] as spread:
        for number in range(_EXTENTS):
            extent = source.read(extent_bytes)
            dense.write(extent)
            spread.seek(number * apart_bytes)
            spread.write(extent)


def _race_sparse(bench: Bench, packager: str, images: list[Path]) -> None:
    def contender(name: str, dev: str) -> Contender:
        groups = {"all": [{"host": "sparse", "disks": [dev]}]}
        return by.our_backup(bench.world, Work(f"sparse-{packager}", packager, groups), name)

    about = f"{images[1].stat().st_size // MIB} MiB of data, in {_EXTENTS} extents or in one."
    contenders = [contender(SPARSE, "vda"), contender(DENSE, "vdb")]
    bench.run(f"sparse {packager}", about, contenders, images)


def parallel(bench: Bench) -> None:
    """Many small domains, four at a time, and each by a run of its own."""
    sizes = bench.world.sizes
    with _small_domains(bench.world, sizes.domains) as names:
        groups = {name: [name] for name in names}
        at_once, single = Work("parallel", "zstd", groups, 4), Work("parallel", "zstd", groups, 1)
        theirs = by.their_backup(bench.world, at_once, THEIRS_AT_ONCE)
        contenders = [
            by.our_backup(bench.world, at_once, AT_ONCE),
            by.our_backups_one_by_one(bench.world, single, ONE_BY_ONE),
            theirs,
        ]
        about = f"{sizes.domains} paused domains with a raw disk of {sizes.small} MiB each, zstd."
        bench.run("parallel", about, contenders, rounds=min(bench.rounds.least, 2))


def memory(bench: Bench) -> None:
    """The most memory with eight domains at once."""
    small = bench.world.sizes.small
    with _small_domains(bench.world, _AT_ONCE_FOR_MEMORY) as names:
        for packager in MEMORY_PACKAGERS:
            work = Work("memory", packager, {"all": names}, threads=_AT_ONCE_FOR_MEMORY)
            about = f"Eight paused domains of {small} MiB at once, threads: 8."
            bench.run(
                f"memory {packager}",
                about,
                [by.our_backup(bench.world, work), by.their_backup(bench.world, work)],
                rounds=1,
            )


@contextmanager
def _small_domains(world: World, count: int) -> Iterator[list[str]]:
    say(f"making {count} domains")
    length_bytes = world.sizes.small * MIB
    names = [f"small-{number:02}" for number in range(count)]
    with ExitStack() as cleanup:
        content = cleanup.enter_context(content_file(world, count * length_bytes).open("rb"))
        for name in names:
            disk = DiskSpec("vda", "raw", length_bytes, fs=None)
            domain = cleanup.enter_context(paused(world, name, [disk]))
            domain.image("vda").write_bytes(content.read(length_bytes))
            start_paused(domain)
        yield names


def startup(bench: Bench) -> None:
    """What needs no work: the command's own start."""
    theirs = [str(virt_backup.install()), "--help"]
    contenders = [
        Contender(HELP, [by.program(), "--help"], is_ours=True),
        Contender("virtbackup --version", [by.program(), "--version"], is_ours=True),
        Contender("virt-backup --help", theirs, env=virt_backup.ENVIRONMENT),
    ]
    bench.run("startup", "The whole process, its files in the page cache.", contenders, rounds=10)


def listing(bench: Bench) -> None:
    """`list` of a target of many backups, and the other commands that read all definitions."""
    place = bench.world.place / "many"
    say(f"making {BACKUPS} backups")
    build(place, BACKUPS, 100)
    config = place.with_suffix(".yml")
    group = {"target": str(place), "hosts": ["r:.*"], "autostart": True}
    config.write_text(yaml.safe_dump({"uri": bench.world.daemon.uri, "groups": {"all": group}}))
    ours = [by.program(), "-c", str(config)]
    page = place.with_suffix(".html")
    contenders = [
        Contender(LIST, [*ours, "list"], is_ours=True),
        Contender(f"{LIST} --json", [*ours, "list", "--json"], is_ours=True),
        Contender(STATUS, [*ours, "status"], is_ours=True),
        Contender(STATS, [*ours, "stats"], is_ours=True),
        Contender(PLAN, [*ours, "clean", "--dry-run"], is_ours=True),
        Contender(REPORT, [*ours, "report", "--html", str(page)], is_ours=True),
        Contender(
            "virt-backup list",
            [str(virt_backup.install()), "-c", str(config), "list"],
            env=virt_backup.ENVIRONMENT,
        ),
    ]
    bench.run("list", f"{BACKUPS} backups of 100 domains, with XML of 8 KB each.", contenders)


def page(bench: Bench) -> None:
    """The page of a large site, beside the mere making of its facts."""
    program = [sys.executable, "-m", "benchmarks.large_page"]
    root = Path(__file__).parent.parent
    paths = os.pathsep.join(map(str, (root, root / "tests" / "support")))
    contenders = [
        Contender("facts", program, is_ours=True, env={"PYTHONPATH": paths}),
        Contender("facts and page", [*program, "--page"], is_ours=True, env={"PYTHONPATH": paths}),
    ]
    about = f"{large_page.GUESTS} guests with {large_page.BACKUPS} backups each."
    bench.run("page", about, contenders, rounds=3)


HOST_CASES: dict[str, Callable[[Bench], None]] = {
    "sparse": sparse,
    "parallel": parallel,
    "memory": memory,
    "startup": startup,
    "list": listing,
    "page": page,
}

"""The benchmarks by name: which contenders race, on what. ``__main__`` picks and runs them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from benchmarks import contenders as by
from benchmarks.contenders import Work, installed
from benchmarks.guest_io import feel
from benchmarks.race import Contender, Rounds, Start, race
from benchmarks.results import GuestIo, Race
from benchmarks.world import GUEST, World
from lab.domains import LabDomain

# Which of the guest's disks a packager is measured on: virt-backup compresses 1 GiB in minutes, by
# bzip2 in one and a half, by xz in ten.
DISK_OF = dict.fromkeys(("directory", "tar", "zstd", "repository"), "vda") | {
    "tar.gz": "vdb",
    "tar.bz2": "vdb",
    "tar.xz": "vdc",
}


@dataclass
class Figures:
    """All that was measured."""

    races: list[Race] = field(default_factory=list)
    guest_io: list[GuestIo] = field(default_factory=list)


@dataclass(frozen=True)
class Bench:
    """Where a case runs, and how often.

    A case that is slow, or whose figures do not scatter, says itself how many rounds it has.
    """

    world: World
    rounds: Rounds
    figures: Figures

    def run(
        self,
        name: str,
        about: str,
        contenders: Sequence[Contender],
        images: Sequence[Path] = (),
        rounds: int | None = None,
    ) -> None:
        """Race those that are installed, and keep the figures."""
        able = installed(contenders)
        how_often = Rounds(rounds) if rounds else self.rounds
        self.figures.races.append(race(name, about, able, how_often, Start(images)))


def packager(name: str, bench: Bench, guest: LabDomain) -> None:
    """Backup and restore with one packager, beside virt-backup and tools of the kind."""
    dev = DISK_OF[name]
    image = guest.image(dev)
    work = Work(name, name, {"all": [{"host": GUEST, "disks": [dev]}]}, quiesce=True)
    data = f"{image.stat().st_blocks * 512 / (1 << 20):.0f} MiB of data in a qcow2 of the guest"
    undo = partial(by.forget_checkpoints, bench.world, GUEST)
    backups = [replace(by.our_backup(bench.world, work), undo=undo)]
    if name not in by.OURS_ALONE:
        backups.append(by.their_backup(bench.world, work))
    if name == "directory":
        backups.append(by.their_synced_backup(bench.world, work))
    rivals = _rivals(bench.world, name, dev, image)
    bench.run(f"backup {name}", f"{data}, which runs meanwhile.", [*backups, *rivals], [image])
    _restore(bench, work, data)


def _restore(bench: Bench, work: Work, data: str) -> None:
    restores = [by.our_restore(bench.world, work, GUEST)]
    about = f"Each its own backup of {data}, in the page cache; virtbackup compares digests"
    if work.packager in by.OURS_ALONE:
        restores.append(by.our_verify(bench.world, work))
        about += "."
    else:
        makers = (by.their_restore, by.their_synced_restore)
        restores += [make(bench.world, work, GUEST) for make in makers]
        about += " and writes to the disk, virt-backup does neither."
    bench.run(f"restore {work.packager}", about, restores)


def _rivals(world: World, packager: str, dev: str, image: Path) -> list[Contender]:
    """What else does the same work on the same image."""
    if packager == "directory":
        tools = [by.tool(world, by.COPY, image), by.tool(world, by.CONVERT, image)]
        return [*tools, by.virtnbdbackup(world, GUEST, dev)]
    if packager in {"zstd", "repository"}:
        lz4 = by.virtnbdbackup(world, GUEST, dev, lz4=True)
        zstd = [by.tool(world, by.ZSTD, image)] if packager == "zstd" else []
        return [*zstd, lz4, by.restic(world, image), by.borg(world, image)]
    plain = {"tar": by.COPY, "tar.gz": by.PIGZ, "tar.xz": by.XZ}
    return [by.tool(world, plain[packager], image)] if packager in plain else []


def guest_io(bench: Bench, guest: LabDomain) -> None:
    """The guest's own reads and writes while it is backed up, uncompressed."""
    groups = {"all": [{"host": GUEST, "disks": ["vda"]}]}
    work = Work("guest-io", "directory", groups, quiesce=True)
    contenders = [
        by.our_backup(bench.world, work),
        by.their_backup(bench.world, work),
        by.virtnbdbackup(bench.world, GUEST, "vda"),
    ]
    bench.figures.guest_io += feel(guest, installed(contenders), bench.rounds.least)


# What needs the guest; in this order.
GUEST_CASES: dict[str, Callable[[Bench, LabDomain], None]] = {
    **{name: partial(packager, name) for name in by.PACKAGERS},
    "guest-io": guest_io,
}

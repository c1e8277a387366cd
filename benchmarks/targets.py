"""What this project demands of itself, and whether a run has met it. Pure.

``TARGETS`` is the table of the docs. A target that was not measured (``--only``, a peer that is not
installed) has no verdict; it is not met by default.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import contenders as by
from benchmarks import host_cases as many
from benchmarks import incremental_cases as nightly
from benchmarks import store_cases as stores
from benchmarks.results import Figure, Race, Series, ratio

MB = 1_000_000


@dataclass(frozen=True)
class Verdict:
    """One line of the table.

    Attributes:
        name: what is measured.
        demand: what is asked of it.
        measured: the figures; empty where nothing was measured.
        is_met: None where nothing was measured.
    """

    name: str
    demand: str
    measured: str
    is_met: bool | None


@dataclass(frozen=True)
class AtMost:
    """One contender takes at most so many times another's figure, a fixed cost left out.

    Round by round; the median counts.
    """

    race: str
    demand: str
    ours: str
    peer: str
    limit: float
    figure: Figure = "wall_s"
    fixed: float = 0

    def judge(self, races: Sequence[Race]) -> Verdict:
        """Say whether it was met."""
        ours, peer = (_series(races, self.race, name) for name in (self.ours, self.peer))
        share = ratio(ours, peer, self.figure, self.fixed)
        if share is None:
            return Verdict(self.race, self.demand, "", None)
        medians = [text(self.figure, series.median(self.figure)) for series in (ours, peer)]
        # A share of 0.59 of the time is better known as 1.7 x as fast.
        said = f"{1 / share:.2f} x as fast" if "fast" in self.demand and share > 0 else ""
        said = said or f"{share:.2f} x" + (f" after {self.fixed:g} s" if self.fixed else "")
        return Verdict(
            self.race, self.demand, f"{said} ({medians[0]}, {medians[1]})", share <= self.limit
        )


@dataclass(frozen=True)
class Ceiling:
    """A figure of one contender stays below so much.

    The median of the runs counts for times; the worst run for everything else.
    """

    race: str
    demand: str
    ours: str
    limit: float
    figure: Figure = "wall_s"

    def judge(self, races: Sequence[Race]) -> Verdict:
        """Say whether it was met."""
        series = _series(races, self.race, self.ours)
        is_time = self.figure == "wall_s"
        value = series.median(self.figure) if is_time else series.highest(self.figure)
        if value is None:
            return Verdict(self.race, self.demand, "", None)
        name = f"{self.race}: {self.ours}" if is_time else self.race
        return Verdict(name, self.demand, text(self.figure, value), value < self.limit)


def _series(races: Sequence[Race], race: str, contender: str) -> Series:
    """The runs of one contender in one race; none if it took no part."""
    found = (one.of(contender) for one in races if one.name == race)
    return next((series for series in found if series), Series(contender))


def text(figure: Figure, value: float | None) -> str:
    """A figure with its unit."""
    if value is None:
        return "-"
    if figure.endswith("_bytes"):
        return f"{value / MB:.0f} MB"
    return f"{value:.0f} ms" if figure.endswith("_ms") else f"{value:.2f} s"


def _beside_tool(packager: str, tool: str) -> AtMost:
    demand = f"at most 1.15 x the time of {tool}, and 0.5 s"
    return AtMost(f"backup {packager}", demand, by.OURS, tool, 1.15, fixed=0.5)


def _times_as_fast(race: str, times: float) -> AtMost:
    words = "not slower" if times == 1 else f"{times:g} x as fast"
    demand = f"{words} than virt-backup" if times == 1 else f"{words} as virt-backup"
    return AtMost(race, demand, by.OURS, by.VIRT_BACKUP, 1 / times)


def _sparse(packager: str) -> list[AtMost]:
    name = f"sparse {packager}"
    demand = "at most 1.3 x the {} of its dense twin"
    pair = (many.SPARSE, many.DENSE, 1.3)
    return [
        AtMost(name, demand.format("time"), *pair),
        AtMost(name, demand.format("size"), *pair, figure="stored_bytes"),
    ]


_AS_FAST = {"directory": 1, "tar": 1, "zstd": 1.7, "tar.gz": 4, "tar.bz2": 1.8, "tar.xz": 1.8}
_RESTORED_AS_FAST = {
    "directory": 1, "tar": 1, "zstd": 1.5, "tar.gz": 1.5, "tar.bz2": 1, "tar.xz": 1.5,
}  # fmt: skip
_FROZEN = "the guest is frozen for less than 300 ms (emulated CPU)"

TARGETS: list[AtMost | Ceiling] = [
    _beside_tool("directory", by.COPY),
    _beside_tool("tar", by.COPY),
    _beside_tool("zstd", by.ZSTD),
    *(_times_as_fast(f"backup {packager}", times) for packager, times in _AS_FAST.items()),
    AtMost(
        "backup tar.gz", "at most 3 % larger than virt-backup's", by.OURS, by.VIRT_BACKUP, 1.03,
        figure="stored_bytes",
    ),
    *(_times_as_fast(f"restore {name}", times) for name, times in _RESTORED_AS_FAST.items()),
    *(
        AtMost("backup repository", f"faster than {peer}", by.OURS, peer, 1)
        for peer in (by.VIRTNBDBACKUP_LZ4, by.RESTIC, by.BORG)
    ),
    Ceiling("restore repository", "1 GiB in 2.6 s: 500 MB/s, and 0.5 s", by.OURS, 2.6),
    Ceiling("restore repository", "1 GiB in 2.3 s: 600 MB/s, and 0.5 s", by.VERIFY, 2.3),
    *(
        Ceiling("incremental", "under 1 s", nightly.NOTHING.format(size), 1)
        for size in nightly.SIZES_GIB
    ),
    Ceiling("incremental", "under 1.5 s", nightly.CHANGED.format(4), 1.5),
    Ceiling("incremental", "under 2 s", nightly.CHANGED.format(100), 2),
    AtMost(stores.FIRST, "faster than restic", stores.S3, stores.RESTIC, 1),
    AtMost(
        stores.FIRST, "encryption takes at most 10 % more", stores.SEALED, stores.S3, 1.1,
        figure="cpu_s",
    ),
    Ceiling(stores.NOTHING, "under 1 s", stores.S3, 1),
    AtMost(
        stores.RESTORE, "at most 1.25 x the time of plain reads, and 0.5 s", stores.S3,
        stores.DOWNLOAD, 1.25, fixed=0.5,
    ),
    *(target for packager in by.PACKAGERS for target in _sparse(packager)),
    AtMost("parallel", "at most 0.6 x the sum of single runs", many.AT_ONCE, many.ONE_BY_ONE, 0.6),
    *(
        Ceiling(f"backup {packager}", _FROZEN, by.OURS, 300, figure="frozen_ms")
        for packager in by.PACKAGERS
    ),
    *(
        Ceiling(f"memory {packager}", "under 200 MB, 8 domains at once", by.OURS, 200 * MB,
                figure="peak_bytes")
        for packager in many.MEMORY_PACKAGERS
    ),
    Ceiling("startup", "under 150 ms", many.HELP, 0.15),
    *(
        Ceiling("list", f"10,000 backups in under {limit:g} s", command, limit)
        for command, limit in (
            (many.LIST, 1), (many.STATUS, 1), (many.STATS, 1), (many.PLAN, 1), (many.REPORT, 5)
        )
    ),
]  # fmt: skip


def judge(races: Sequence[Race]) -> list[Verdict]:
    """All verdicts, in the order of the table."""
    return [target.judge(races) for target in TARGETS]

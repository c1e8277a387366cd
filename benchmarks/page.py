"""The results as Markdown: verdicts, then each race. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from benchmarks.host import Host
from benchmarks.results import GuestIo, Race, Series, ratio
from benchmarks.targets import Verdict, text

_MARKS = {True: "**met**", False: "**not met**", None: "not measured"}
_INTRODUCTION = """\
# Benchmarks

Written by `{command}` on {date}. Make your own with `./scripts/bench`; with
`--quick` it takes 3 minutes, and its figures are rough.

![Time of a backup](backup.svg)

![Time of a restore](restore.svg)

{machine}

How it is measured: every program as a whole process, from its start to its end, with its children;
all contenders once in each round, A B C, A B C, so that noise hits all of them. Short races have
more rounds. The tables have medians, and the ratio is the median of the ratios round by round.
Before each run its old output is removed, the image is read once into the page cache, and
everything dirty is written out: all start from a warm cache and a clean disk. Images and targets
are on the same file system. The guest runs on an emulated CPU; what QEMU and libvirt do for a
backup is in the clock, not in the CPU column. virt-backup syncs nothing: when it ends, its backup
is in memory only. virtbackup's is on the disk then, like that of the tools with `fsync`.
"""


@dataclass(frozen=True)
class Report:
    """Everything a run found out."""

    command: str
    date: str
    host: Host
    verdicts: list[Verdict]
    races: list[Race]
    guest_io: list[GuestIo]


def markdown(report: Report) -> str:
    """The page."""
    head = _INTRODUCTION.format(
        command=report.command,
        date=report.date,
        machine=_machine(report.host),
    )
    parts = [head, "## Targets\n", _verdicts(report.verdicts)]
    parts += [_race(race) for race in report.races]
    if report.guest_io:
        parts.append(_guest_io(report.guest_io))
    return "\n".join(parts)


def _machine(host: Host) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in host.versions.items())
    absent = f" Not installed, so not measured: {', '.join(host.absent)}." if host.absent else ""
    machine = f"{host.system}; {host.cpu}, {host.memory_mib} MiB"
    return f"{machine}; load before the start {host.load:.1f}. {versions}.{absent}"


def _verdicts(verdicts: Sequence[Verdict]) -> str:
    rows = [[one.name, one.demand, one.measured, _MARKS[one.is_met]] for one in verdicts]
    return table(["what", "demand", "measured", ""], rows)


def _race(race: Race) -> str:
    first = race.series[0] if race.series else Series("")
    heads = ["", "time", "", "CPU", "memory", "stored", "frozen"]
    heads[2] = f"x {first.contender}"
    rows = [
        [
            series.contender,
            text("wall_s", series.median("wall_s")),
            _times(series, first),
            text("cpu_s", series.median("cpu_s")),
            text("peak_bytes", series.highest("peak_bytes")),
            text("stored_bytes", series.median("stored_bytes")),
            text("frozen_ms", series.highest("frozen_ms")),
        ]
        for series in race.series
    ]
    about = f"{race.about} {_rounds(race)}"
    return f"## {race.name}\n\n{about}\n\n{table(heads, _without_empty_columns(heads, rows))}"


def _rounds(race: Race) -> str:
    rounds = max((len(series.samples) for series in race.series), default=0)
    return "One round." if rounds == 1 else f"{rounds} rounds."


def _times(series: Series, first: Series) -> str:
    share = ratio(series, first, "wall_s")
    return "-" if share is None else f"{share:.2f}"


def _without_empty_columns(heads: list[str], rows: list[list[str]]) -> list[list[str]]:
    """The rows without columns that nobody has a figure in; their heads go too."""
    empty = [at for at in range(len(heads)) if all(row[at] == "-" for row in rows)]
    for at in reversed(empty):
        del heads[at]
    return [[cell for at, cell in enumerate(row) if at not in empty] for row in rows]


def _guest_io(guest_io: Sequence[GuestIo]) -> str:
    by_contender = groupby(sorted(guest_io, key=lambda one: one.contender), lambda o: o.contender)
    rows = [_felt(contender, list(felt)) for contender, felt in by_contender]
    heads = ["backup by", "calm", "meanwhile", "rate kept", "longest gap, calm", "meanwhile"]
    return f"## guest's own I/O\n\n{_GUEST_IO}\n\n{table(heads, rows)}"


_GUEST_IO = """\
The guest writes 1 MiB with a sync and reads 1 MiB that is not cached, again and again, before and
during an uncompressed backup of its 4 GiB disk. A gap is the time between two finished turns: a
freeze shows there, on top of what a turn takes anyway. Means of all rounds; gaps: the longest."""


def _felt(contender: str, felt: Sequence[GuestIo]) -> list[str]:
    calm, meanwhile = _mean(f.calm_mib_s for f in felt), _mean(f.meanwhile_mib_s for f in felt)
    return [
        contender,
        f"{calm:.1f} MiB/s",
        f"{meanwhile:.1f} MiB/s",
        f"{100 * meanwhile / calm:.0f} %" if calm else "-",
        f"{max(f.calm_gap_ms for f in felt):.0f} ms",
        f"{max(f.longest_gap_ms for f in felt):.0f} ms",
    ]


def _mean(values: Iterable[float]) -> float:
    gathered = list(values)
    return sum(gathered) / len(gathered)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a bar in a cell would end it."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(c.replace('|', '/') for c in line)} |\n" for line in lines)

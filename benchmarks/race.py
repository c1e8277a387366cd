"""Runs contenders against each other: A B C, A B C, ..., each from the same state.

Before every run: the contender's old output is removed, the images are read once so that they are
in the page cache, and everything dirty is written out. So a run pays neither for a cold cache nor
for what the one before it left unwritten.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.measure import Run, RunFailedError, run, stored_bytes
from benchmarks.results import Race, Sample, Series

_READ_BYTES = 8 << 20
_MOST_ROUNDS = 9


@dataclass(frozen=True)
class Contender:
    """One program with its work.

    Attributes:
        name: as the tables have it.
        argv: the command line, the same in each round.
        output: the directory it writes to, emptied before each run; None: it writes nothing.
        setup: what else is made ready before each run, not measured.
        undo: what is put back after each run, not measured.
        env: added to the environment.
        is_ours: it fails the benchmark if it fails; a peer is left out instead.
        program: what must be installed; by default the first word of ``argv``.
        reads: a directory, brought into the page cache before each run.
    """

    name: str
    argv: Sequence[str]
    output: Path | None = None
    setup: Callable[[], object] | None = None
    undo: Callable[[], object] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    is_ours: bool = False
    program: str = ""
    reads: Path | None = None

    @property
    def needs(self) -> str:
        """The program that must be installed."""
        return self.program or self.argv[0]


@dataclass(frozen=True)
class Start:
    """The state that every run starts from.

    Attributes:
        images: in the page cache.
        settle: ends what is still to be written.
    """

    images: Sequence[Path] = ()
    settle: Callable[[], object] = os.sync


SETTLED = Start()


@dataclass(frozen=True)
class Rounds:
    """How often all contenders run.

    Attributes:
        least: so often at least.
        least_s: a race that is over sooner goes on with more rounds, nine at most.
    """

    least: int
    least_s: float = 0

    def are_over(self, number: int, began_s: float) -> bool:
        """Whether so many are enough, of a race that began then by the monotonic clock."""
        is_long = number >= _MOST_ROUNDS or time.monotonic() - began_s >= self.least_s
        return number >= self.least and is_long


def race(
    name: str,
    about: str,
    contenders: Sequence[Contender],
    rounds: Rounds,
    start: Start = SETTLED,
) -> Race:
    """Run all contenders in each round, and return their figures.

    Raises:
        RunFailedError: a program of this project failed.
    """
    series = {contender.name: Series(contender.name) for contender in contenders}
    left_out: dict[str, str] = {}
    began_s, number = time.monotonic(), 0
    while not rounds.are_over(number, began_s):
        number += 1
        for contender in contenders:
            if contender.name in left_out:
                continue
            prepare(contender, start)
            try:
                sample = _sample(contender)
            except RunFailedError as error:
                if contender.is_ours:
                    raise
                left_out[contender.name] = str(error)
                say(f"left out: {error}")
                continue
            series[contender.name].samples.append(sample)
        say(f"{name}, round {number}: {_last(series.values())}")
    ran = [one for one in series.values() if one.contender not in left_out]
    return Race(name, about + _words_of(left_out), ran)


def _last(all_series: Iterable[Series]) -> str:
    ran = (series for series in all_series if series.samples)
    return ", ".join(f"{series.contender} {series.samples[-1].wall_s:.2f} s" for series in ran)


def _words_of(left_out: Mapping[str, str]) -> str:
    return "".join(f" {name} failed and is left out." for name in left_out)


def prepare(contender: Contender, start: Start) -> None:
    """Bring the machine into the state that every run starts from."""
    if contender.output is not None:
        shutil.rmtree(contender.output, ignore_errors=True)
        contender.output.mkdir(parents=True)
    if contender.setup:
        contender.setup()
    packages = contender.reads.rglob("*") if contender.reads else ()
    for file in (*start.images, *filter(Path.is_file, packages)):
        _read(file)
    start.settle()


def _read(image: Path) -> None:
    """Bring a file's data into the page cache, holes left out."""
    with image.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        at = 0
        while at < size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:  # no data behind it
                return
            at += len(os.pread(file.fileno(), _READ_BYTES, at)) or size


def _sample(contender: Contender) -> Sample:
    try:
        done = run(contender.argv, contender.env)
    finally:
        if contender.undo:
            contender.undo()
    stored = stored_bytes(contender.output) if contender.output else None
    return Sample(done.wall_s, done.cpu_s, done.peak_bytes, stored, _frozen_ms(done))


def _frozen_ms(done: Run) -> int | None:
    """The longest freeze that JSON lines on stdout tell of."""
    lines = [line for line in done.output.splitlines() if line.startswith('{"event":"backup_done"')]
    told = [json.loads(line).get("frozen_ms") for line in lines]
    return max((ms for ms in told if ms is not None), default=None)


def say(what: str) -> None:
    """Tell how far it is, on stderr."""
    print(what, file=sys.stderr, flush=True)

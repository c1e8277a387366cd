"""The figures of a run: samples, medians, and ratios taken round by round. Pure.

A race has rounds; in each, every contender runs once. So the n-th samples of two contenders were
taken within seconds of each other, and their ratio says more than the ratio of two medians.
"""

import statistics
from dataclasses import dataclass, field
from typing import Literal

Figure = Literal["wall_s", "cpu_s", "peak_bytes", "stored_bytes", "frozen_ms"]


@dataclass(frozen=True)
class Sample:
    """One run of one program, of its whole process tree.

    Attributes:
        wall_s: from its start to its end.
        cpu_s: user and system time of it and its children.
        peak_bytes: the most memory seen resident.
        stored_bytes: what its output takes on the disk (``du``); None where it has none.
        frozen_ms: how long it says the guest was frozen, if it says so.
    """

    wall_s: float
    cpu_s: float
    peak_bytes: int
    stored_bytes: int | None = None
    frozen_ms: int | None = None


@dataclass
class Series:
    """All runs of one contender, in the order of the rounds."""

    contender: str
    samples: list[Sample] = field(default_factory=list)

    def values(self, figure: Figure) -> list[float]:
        """One figure of all runs; empty if any run has none."""
        values = [getattr(sample, figure) for sample in self.samples]
        return [] if None in values else [float(value) for value in values]

    def median(self, figure: Figure) -> float | None:
        """The median, or None where there is no such figure."""
        values = self.values(figure)
        return statistics.median(values) if values else None

    def highest(self, figure: Figure) -> float | None:
        """The worst run, or None where there is no such figure."""
        return max(self.values(figure), default=None)


@dataclass
class Race:
    """Contenders that did the same work in the same rounds.

    Attributes:
        name: ``backup zstd``.
        about: on what, and what is peculiar, in a sentence.
        series: by contender, in the order of the rounds.
    """

    name: str
    about: str
    series: list[Series]

    def of(self, contender: str) -> Series | None:
        """The runs of one contender, if it took part."""
        return next((series for series in self.series if series.contender == contender), None)


@dataclass(frozen=True)
class GuestIo:
    """What a guest's own reads and writes felt of one backup.

    Attributes:
        contender: whose backup.
        calm_mib_s: what the guest moved just before it.
        meanwhile_mib_s: what it moved during it.
        longest_gap_ms: the longest time without a finished turn during it.
        calm_gap_ms: the same before it: a turn takes its time without any backup.
    """

    contender: str
    calm_mib_s: float
    meanwhile_mib_s: float
    longest_gap_ms: float
    calm_gap_ms: float


def ratio(one: Series, other: Series, figure: Figure, fixed: float = 0) -> float | None:
    """The median of ``(one - fixed) / other``, round by round.

    Args:
        one: whose figure is divided.
        other: by whose.
        figure: which.
        fixed: cost that ``one`` may have whatever the amount of work.
    """
    pairs = list(zip(one.values(figure), other.values(figure), strict=False))
    if not pairs or any(divisor <= 0 for _, divisor in pairs):
        return None
    return statistics.median((dividend - fixed) / divisor for dividend, divisor in pairs)

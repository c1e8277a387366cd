"""What the guests felt of their backups: how long they were frozen, and how long on overlays.

The history knows both, of removed backups too; a definition knows only the first.
"""

from collections.abc import Iterable, Iterator, Sequence
from statistics import median

from msgspec import Struct

from virtbackup_async.model.facts import BackupFacts
from virtbackup_async.model.pull import Method
from virtbackup_async.model.run_record import DomainRun, Outcome
from virtbackup_async.reporting.overview.days import DAYS, recent
from virtbackup_async.reporting.overview.parts import Felt

_DAY_S = 86_400
_FACTOR = 3
_LEAST_BACKUPS = 5
_LEAST_MS = 500
_LEAST_S = 600.0
_BEGIN = ("freezing", "copying")
_END = "finishing"


class _Felt(Struct, frozen=True):
    """One backup."""

    date: float
    frozen_ms: int | None
    overlay_s: float | None


def felt_of(
    backups: Sequence[BackupFacts], attempts: Iterable[DomainRun], at: float
) -> Felt | None:
    """Return what a guest felt of its backups in the last days; None if that is not known.

    Args:
        backups: of the guest, oldest first.
        attempts: its runs in the history.
        at: now; what is dated later is left out.
    """
    found = [one for one in _each(backups, attempts, at - DAYS * _DAY_S) if one.date <= at]
    found.sort(key=lambda one: one.date)
    frozen = [(one.frozen_ms, one.date) for one in found if one.frozen_ms is not None]
    if not frozen and all(one.overlay_s is None for one in found):
        return None
    last, before = found[-1], found[:-1]
    usual_ms = _usual([one.frozen_ms for one in before])
    usual_s = _usual([one.overlay_s for one in before])
    longest_ms, longest_date = max(frozen, default=(None, None))
    return Felt(
        last.date,
        last.frozen_ms,
        usual_ms,
        longest_ms,
        longest_date,
        last.overlay_s,
        usual_s,
        is_raised=_is_raised(last.frozen_ms, usual_ms, _LEAST_MS)
        or _is_raised(last.overlay_s, usual_s, _LEAST_S),
    )


def _each(
    backups: Sequence[BackupFacts], attempts: Iterable[DomainRun], since: float
) -> Iterator[_Felt]:
    seen = set()
    for run in attempts:
        if run.outcome == Outcome.DONE and run.end >= since:
            seen.add(run.backup)
            yield _Felt(run.end, run.frozen_ms, _overlay_s(run))
    for backup in recent(backups, since):
        if backup.name not in seen:
            yield _Felt(backup.date, backup.frozen_ms, None)


def _overlay_s(run: DomainRun) -> float | None:
    """Return how long a guest was on overlays: from its snapshot until all are committed."""
    begins = dict(run.phases)
    begin_s = next((begins[name] for name in _BEGIN if name in begins), None)
    if run.method != Method.SNAPSHOT or begin_s is None:
        return None
    length_s = run.end - run.start
    return max(0.0, min(begins.get(_END, length_s), length_s) - begin_s)


def _usual(amounts: Iterable[float | None]) -> float | None:
    known = [amount for amount in amounts if amount is not None]
    return median(known) if len(known) >= _LEAST_BACKUPS else None


def _is_raised(amount: float | None, usual: float | None, least: float) -> bool:
    if amount is None or usual is None:
        return False
    return amount >= _FACTOR * usual and amount - usual >= least

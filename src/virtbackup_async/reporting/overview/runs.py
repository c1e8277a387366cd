"""The runs of all targets as one sequence, and the last night."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from msgspec.structs import replace

from virtbackup_async.model.facts import Facts, GuestFacts
from virtbackup_async.model.run_record import DomainRun, Outcome, RunRecord
from virtbackup_async.reporting.overview.parts import Bar, Night

BACKUP = "backup"
VERIFY = "verify"
_FREEZING = "freezing"
CLOCK_SLACK_S = 60
"""How far in the future a date may be before it is disregarded."""
_NIGHT_S = 12 * 3600
_TOO_OLD_S = 48 * 3600

Key = tuple[str, str]
"""A group and a domain."""


def merged_runs(facts: Facts) -> tuple[RunRecord, ...]:
    """Return the runs of all targets; see ``each_once``."""
    return each_once((record for target in facts.targets for record in target.history), facts.at)


def each_once(records: Iterable[RunRecord], at: float) -> tuple[RunRecord, ...]:
    """Return each run once, with the domains of all its targets, oldest first.

    Runs that claim to be in the future are left out: they would remain the last ones for ever.
    """
    runs: dict[str, RunRecord] = {}
    for record in records:
        if record.end > at + CLOCK_SLACK_S or record.start > record.end:
            continue
        known = runs.get(record.run_id)
        runs[record.run_id] = _joined(known, record) if known else record
    return tuple(sorted(runs.values(), key=lambda run: run.start))


def _joined(one: RunRecord, other: RunRecord) -> RunRecord:
    domains = dict.fromkeys((*one.domains, *other.domains))
    return replace(
        one,
        start=min(one.start, other.start),
        end=max(one.end, other.end),
        exit_code=max(one.exit_code, other.exit_code),
        domains=tuple(domains),
        removed=one.removed + other.removed,
    )


def attempts_of(
    runs: Iterable[RunRecord], guests: Iterable[GuestFacts]
) -> dict[Key, list[DomainRun]]:
    """Return the attempted backups of each guest, by their end, oldest first."""
    attempts: dict[Key, list[tuple[str, DomainRun]]] = {}
    for run in runs:
        for domain in run.domains:
            if domain.outcome in (Outcome.DONE, Outcome.FAILED):
                key = domain.group, domain.domain
                attempts.setdefault(key, []).append((run.host, domain))
    return {
        guest.key: sorted(
            (
                attempt
                for host, attempt in attempts.get((guest.group, guest.domain), ())
                if not guest.hosts or host in guest.hosts
            ),
            key=lambda attempt: attempt.end,
        )
        for guest in guests
    }


def read_speed(runs: Sequence[RunRecord]) -> float | None:
    """Return the bytes a second at which the last ``verify`` read backups; None if unknown."""
    for run in reversed(runs):
        verified = [one for one in run.domains if one.outcome == Outcome.VERIFIED]
        took_s = sum(one.end - one.start for one in verified)
        read_bytes = sum(one.data_bytes for one in verified)
        if took_s > 0 and read_bytes:
            return read_bytes / took_s
    return None


def last_night(runs: Sequence[RunRecord], names: Mapping[Key, str], at: float) -> Night | None:
    """Return the last backup runs: those that began within 12 hours before the last one ended.

    Args:
        runs: oldest first.
        names: those of the guests.
        at: now; a night that is older than two days is not shown.
    """
    backups = [run for run in runs if run.command == BACKUP]
    if not backups:
        return None
    end = max(run.end for run in backups)
    if end < at - _TOO_OLD_S:
        return None
    chosen = tuple(run for run in backups if run.start >= end - _NIGHT_S or run.end == end)
    bars = sorted(_bars(chosen, names), key=lambda bar: (bar.run.start, bar.name))
    errors = (run.error or "" for run in chosen if run.exit_code and not run.domains)
    start = min(run.start for run in chosen)
    return Night(start, end, chosen, tuple(bars), tuple(filter(None, errors)))


def _bars(runs: Iterable[RunRecord], names: Mapping[Key, str]) -> Iterator[Bar]:
    for run in runs:
        for one in run.domains:
            # A damaged record must not draw beyond the night.
            if run.start - 1 <= one.start <= one.end <= run.end + 1:
                phases = tuple(_phases(one))
                yield Bar(
                    names.get((one.group, one.domain), one.domain),
                    one,
                    phases,
                    next((begin for name, begin, _ in phases if name == _FREEZING), None),
                )


def _phases(one: DomainRun) -> Iterator[tuple[str, float, float]]:
    length_s = one.end - one.start
    begins = [(name, begin_s) for name, begin_s in one.phases if 0 <= begin_s <= length_s]
    begins.sort(key=lambda phase: phase[1])
    for (name, begin_s), (_, end_s) in pairwise([*begins, ("", length_s)]):
        yield name, one.start + begin_s, one.start + end_s

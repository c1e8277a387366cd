"""From facts to the overview."""

from datetime import tzinfo
from math import inf

from virtbackup_async.model.facts import Facts
from virtbackup_async.reporting.overview.actions import actions_of
from virtbackup_async.reporting.overview.capacity import capacities
from virtbackup_async.reporting.overview.changes import changes_of
from virtbackup_async.reporting.overview.confidence import confidence_of, totals_of
from virtbackup_async.reporting.overview.days import LocalDays, sum_up
from virtbackup_async.reporting.overview.guests import Context, guest_line, names_of
from virtbackup_async.reporting.overview.parts import (
    GuestLine,
    Overview,
    SkippedDisk,
    Standing,
    Unprotected,
)
from virtbackup_async.reporting.overview.runs import (
    attempts_of,
    last_night,
    merged_runs,
    read_speed,
)
from virtbackup_async.reporting.overview.verdict import verdict_of


def build_overview(facts: Facts, zone: tzinfo | None = None) -> Overview:
    """Draw the conclusions from facts.

    Args:
        facts: everything that is known.
        zone: the time zone of the days; None for the local one.
    """
    runs = merged_runs(facts)
    names = names_of(facts)
    days = LocalDays(facts.at, zone)
    speed = read_speed(runs)
    unreadable = frozenset(t.path for t in facts.targets if t.error is not None)
    attempts = attempts_of(runs, facts.guests)
    context = Context(facts.at, days, names, attempts, unreadable, speed)
    lines = [guest_line(guest, context) for guest in facts.guests]
    lines.sort(key=_urgency)
    capacity = capacities(facts)
    confidence = confidence_of(facts, names, speed)
    return Overview(
        at=facts.at,
        host=facts.host,
        version=facts.version,
        config=facts.config,
        verdict=verdict_of(facts, lines),
        actions=actions_of(facts, lines, capacity, confidence),
        guests=tuple(lines),
        days=sum_up(lines, days),
        unprotected=_unprotected(facts, lines),
        night=last_night(runs, names, facts.at),
        changes=changes_of(facts, runs, attempts, names),
        capacity=capacity,
        totals=totals_of(facts, lines),
        confidence=confidence,
        calendars=facts.calendars,
        leftovers=facts.leftovers,
        running=facts.running,
        runs=runs,
        problems=tuple(
            f"{target.path}: {problem}" for target in facts.targets for problem in target.problems
        ),
        of_target=facts.of_target,
    )


def _urgency(line: GuestLine) -> tuple[int, float, str]:
    """Sort by standing; sort the bad ones by how far their age exceeds the allowed one."""
    rank = 0.0
    if line.standing in (Standing.LOST, Standing.BAD):
        rank = -inf if line.age_s is None else -round(line.age_s / (line.max_age_s or 1), 1)
    return line.standing, rank, line.name


def _unprotected(facts: Facts, lines: list[GuestLine]) -> Unprotected:
    return Unprotected(
        is_known=not facts.of_target,
        domains=facts.unclaimed,
        disks=tuple(
            SkippedDisk(line.name, disk, reason)
            for line in lines
            if line.newest is not None and line.standing is not Standing.RETIRED
            for disk, reason in line.newest.lacks
        ),
        groups=tuple(
            name for name, autostart in facts.groups if not autostart and not facts.of_target
        ),
        unclaimed=tuple(
            dict.fromkeys(domain for target in facts.targets for domain in target.unclaimed)
        ),
        hypervisor_error=facts.hypervisor_error,
    )

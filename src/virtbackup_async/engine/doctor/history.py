"""What the target's backups tell: how old the last one of each domain is, and what is damaged."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from virtbackup_async.catalog.scanning import FoundBackup, Scan
from virtbackup_async.config.schema import Group
from virtbackup_async.engine.doctor.amounts import DAY_S, span
from virtbackup_async.engine.doctor.target import last_backups
from virtbackup_async.events import Finding, Level

CHECK = "backups"
STALE_AFTER_S = 8 * DAY_S
"""More than a week: the longest interval that is usual, and a day of patience."""
CLOCK_SLACK_S = 60


def check_history(
    group: Group, scan: Scan, domain_names: Sequence[str] | None, now: datetime
) -> Iterator[Finding]:
    """Look at the last backup of each domain of a group.

    Args:
        group: whose domains.
        scan: of the group's target.
        domain_names: all that libvirt knows; None where it does not answer.
        now: an aware time.
    """
    last = last_backups([group], scan)
    wanted = last if domain_names is None else filter(group.includes, domain_names)
    for domain in sorted(wanted):
        if domain in last:
            yield judge_last(domain, last[domain], now)
        else:
            message = f"has no backup in group {group.name} yet"
            advice = f"Run `virtbackup backup {group.name}`."
            yield Finding(Level.WARNING, CHECK, domain, message, advice)


def judge_last(domain: str, found: FoundBackup, now: datetime) -> Finding:
    """Judge the age of a domain's newest backup."""
    age_s = now.timestamp() - found.definition.date
    if age_s < -CLOCK_SLACK_S:
        message = f"{found.path}: is dated {span(-age_s)} in the future"
        advice = "Set the clock; `virtbackup clean` does not count such a backup."
        return Finding(Level.WARNING, CHECK, domain, message, advice)
    message = f"the last backup is {span(max(0, age_s))} old"
    if age_s > STALE_AFTER_S:
        advice = "See that the timer is on: systemctl list-timers 'virtbackup*'."
        return Finding(Level.WARNING, CHECK, domain, message, advice)
    return Finding(Level.OK, CHECK, domain, message)


def check_damage(groups: Sequence[Group], scan: Scan) -> Iterator[Finding]:
    """Say what should be a backup of a group's domains and is none."""
    for problem in scan.problems:
        if any(group.includes(problem.domain_directory) for group in groups):
            yield Finding(
                Level.PROBLEM,
                CHECK,
                problem.domain_directory,
                problem.message,
                "It cannot be restored: remove it, or bring its files back.",
            )

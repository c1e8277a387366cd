"""The target's backups: how old each domain's last one is, and which are damaged.

A backup that ``verify`` found damaged does not count, however new it is. A backup that is dated in
the future hides the real age of the newest one.
"""

import shlex
from collections.abc import Iterator, Sequence
from datetime import datetime

from virtbackup_async.catalog.scanning import FoundBackup, Problem, Scan, is_removal_note
from virtbackup_async.config.schema import Config, Group
from virtbackup_async.engine.clean.stopped import jump_of
from virtbackup_async.engine.host_state import host_name
from virtbackup_async.engine.inventory.dates import CLOCK_SLACK_S, local_time, time_of
from virtbackup_async.engine.inventory.guests import Guests, KnownGuest
from virtbackup_async.engine.inventory.locate import is_definition
from virtbackup_async.engine.inventory.unclaimed import unclaimed_backups
from virtbackup_async.events import Finding, Level
from virtbackup_async.model.amounts import age

CHECK = "backups"
STALE_AFTER_S = 8 * 24 * 3600
"""A week, the longest usual interval, and a day of patience."""


def check_history(
    config: Config,
    group: Group,
    scan: Scan,
    domain_names: Sequence[str] | None,
    now: datetime,
) -> Iterator[Finding]:
    """Check the backups of each domain of a group.

    Args:
        config: the configuration.
        group: the group.
        scan: of the group's target.
        domain_names: all that libvirt knows; None if it does not answer.
        now: an aware time.
    """
    guests = Guests(scan)
    kept = [one for one in guests.all if one.backups and group.includes(one.name)]
    own = [one for one in kept if _may_be_of_this_host(one)]
    names = {one.name for one in own}
    wanted = names if domain_names is None else set(filter(group.includes, domain_names))
    for one in kept:
        word = guests.word(one)
        yield from judge_damage(group.name, word, one.backups, now)
        yield from judge_change(config, group.name, one.backups)
        # If libvirt does not know the domain, the age of its last backup means nothing.
        yield from judge_age(word, one.backups, now) if one in own and one.name in wanted else ()
    for domain in sorted(wanted - names):
        message = f"has no backup in group {group.name} yet"
        advice = f"Run `virtbackup backup {group.name}`."
        yield Finding(Level.WARNING, CHECK, domain, message, advice, code="no_backup_yet")


def _may_be_of_this_host(guest: KnownGuest) -> bool:
    """Return whether this host's libvirt knows the guest, if it knows its name.

    Of a directory, this is not asked: who may write to it is up to its admin.
    """
    if guest.backups[0].path.target.is_local:
        return True
    return guest.host in {None, host_name()}


def judge_damage(
    group: str, domain: str, backups: Sequence[FoundBackup], now: datetime
) -> Iterator[Finding]:
    """Judge which backups of a domain, oldest first and at least one, are damaged or misdated."""
    past, good = _counted(backups, now)
    if len(past) < len(backups):
        yield _in_the_future(domain, backups[len(past) :], now)
    if past and past[-1].definition.is_damaged:
        yield _newest_is_damaged(group, domain, past[-1], good, now)
    elif len(good) < len(past):
        message = f"verify found {len(past) - len(good)} of its older backups damaged"
        advice = "`virtbackup clean` does not count them, with --drop-damaged it removes them."
        yield Finding(Level.WARNING, CHECK, domain, message, advice, code="older_damaged")


def judge_change(config: Config, group: str, backups: Sequence[FoundBackup]) -> Iterator[Finding]:
    """Judge whether a domain's data changed suddenly, which ransomware may have done."""
    found = jump_of(config, group, backups)
    if found is not None:
        error = found.error
        message = f"{error.reason}; clean keeps the backups from before it"
        domain = found.jump.found.definition.domain_name
        yield Finding(Level.PROBLEM, CHECK, domain, message, error.hint, code="unusual_change")


def judge_age(domain: str, backups: Sequence[FoundBackup], now: datetime) -> Iterator[Finding]:
    """Judge the age of a domain's newest backup; a damaged one has a finding of its own."""
    past, good = _counted(backups, now)
    if not good or good[-1] is not past[-1]:
        return
    age_s = max(0, now.timestamp() - good[-1].definition.date)
    message = f"the last backup is {age(age_s)} old"
    if age_s > STALE_AFTER_S:
        advice = "See that the timer is on: systemctl list-timers 'virtbackup*'."
        yield Finding(Level.WARNING, CHECK, domain, message, advice, code="backup_too_old")
    else:
        yield Finding(Level.OK, CHECK, domain, message, code="backup_age")


def _counted(
    backups: Sequence[FoundBackup], now: datetime
) -> tuple[list[FoundBackup], list[FoundBackup]]:
    """Return the backups that are not dated in the future, and the undamaged ones of these."""
    latest_s = now.timestamp() + CLOCK_SLACK_S
    past = [found for found in backups if found.definition.date <= latest_s]
    return past, [found for found in past if not found.definition.is_damaged]


def _in_the_future(domain: str, future: Sequence[FoundBackup], now: datetime) -> Finding:
    ahead = age(future[-1].definition.date - now.timestamp())
    message = f"{future[-1].path}: is dated {ahead} in the future"
    if len(future) > 1:
        message = f"{len(future)} backups are dated in the future, {message}"
    advice = (
        "Set the clock. `virtbackup clean` does not count such a backup, and until then it stays "
        "the newest: restore with --date."
    )
    return Finding(Level.WARNING, CHECK, domain, message, advice, code="dated_in_future")


def _newest_is_damaged(
    group: str, domain: str, newest: FoundBackup, good: Sequence[FoundBackup], now: datetime
) -> Finding:
    verified = newest.definition.verified
    when = f" {time_of(verified.date):%Y-%m-%d %H:%M}" if verified else ""
    message = (
        f"the newest backup, of {local_time(newest.definition):%Y-%m-%d %H:%M:%S}, was found "
        f"damaged by verify{when}"
    )
    if not good:
        advice = f"None of its backups is good: run `virtbackup backup {group}` now."
        return Finding(
            Level.PROBLEM, CHECK, domain, f"{message}; NONE IS GOOD", advice, code="none_good"
        )
    last = good[-1].definition
    message = f"{message}; the newest good one is {age(now.timestamp() - last.date)} old"
    words = ["virtbackup", "restore", "--date", last.name, "--", group, domain, "DIRECTORY"]
    advice = shlex.join(words)
    return Finding(Level.PROBLEM, CHECK, domain, message, advice, code="newest_damaged")


def check_damage(groups: Sequence[Group], scan: Scan) -> Iterator[Finding]:
    """Report files that should be a backup of a group's domains, and are not."""
    for problem in scan.problems:
        if any(group.includes(problem.domain) for group in groups):
            yield Finding(
                Level.PROBLEM,
                CHECK,
                problem.domain,
                problem.message,
                _advice_on(problem),
                code="broken_backup",
            )


def _advice_on(problem: Problem) -> str:
    if is_removal_note(problem.path):
        return "Run `virtbackup clean` to end its removal."
    if not is_definition(problem):
        return "It is no backup as it is: bring its files back, or remove it."
    whose = problem.uuid or problem.domain
    words = ["virtbackup", "forget", "--", f"{whose}@{problem.path.stem}"]
    return f"Bring its files back, or remove it: {shlex.join(words)}"


def check_unclaimed(config: Config, group: Group, scan: Scan) -> list[Finding]:
    """Report the domains of a group's target that no group includes any more. Blocks."""
    left = unclaimed_backups(config, group.target, scan) if group.target else None
    if left is None:
        return []
    message = f"no group means {', '.join(left.domains)}: {left.backups} backups left alone"
    advice = "Remove them by hand, or name the domains in `hosts` of a group."
    return [Finding(Level.INFO, CHECK, left.target, message, advice, code="unclaimed_backups")]

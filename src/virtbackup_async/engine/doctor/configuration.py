"""Checks of the configuration, and how its ``hosts`` match the domains. Pure."""

from collections.abc import Iterator, Sequence

from virtbackup_async.config.patterns import HostPattern, PatternKind
from virtbackup_async.config.schema import Config, Group
from virtbackup_async.config.suggestion import did_you_mean
from virtbackup_async.events import Finding, Level

AUTOSTART = "autostart"


def check_autostart(config: Config) -> Iterator[Finding]:
    """Report groups that a run without a name skips, although nobody configured that."""
    if not config.groups:
        advice = "Write `groups`: as it is, nothing is backed up."
        yield Finding(
            Level.PROBLEM, AUTOSTART, str(config.path), "has no groups", advice, code="no_groups"
        )
        return
    for name in config.groups_without_autostart:
        advice = "Write autostart: true or false; virt-backup 0.5.6 would back it up."
        message = "has no autostart key: `virtbackup backup` without its name passes over it"
        yield Finding(
            Level.WARNING, AUTOSTART, f"group {name}", message, advice, code="no_autostart"
        )


def check_trust(config: Config) -> Iterator[Finding]:
    """Report that hooks are refused, if others may write to the configuration."""
    if config.distrust is not None:
        message = f"hooks are refused, and the backups behind them: {config.distrust.message}"
        advice = config.distrust.hint
        yield Finding(
            Level.PROBLEM, "hooks", str(config.path), message, advice, code="hooks_refused"
        )


def check_target(group: Group) -> Iterator[Finding]:
    """Report that a group has no target."""
    if group.target:
        return
    advice = "Write target: and a directory in the group, or in default."
    yield Finding(
        Level.PROBLEM, "target", f"group {group.name}", "has no target", advice, code="no_target"
    )


def check_group(group: Group, domain_names: Sequence[str]) -> Iterator[Finding]:
    """Report patterns that match nothing, and the domains that the group includes."""
    subject = f"group {group.name}"
    for entry in group.hosts:
        if not any(entry.pattern.matches(domain) for domain in domain_names):
            yield _unmatched(subject, entry.pattern, domain_names)
    meant = [domain for domain in domain_names if group.includes(domain)]
    if not meant:
        advice = "Check `hosts` of the group, and `uri`."
        yield Finding(
            Level.WARNING, "pattern", subject, "matches no domain", advice, code="group_empty"
        )
    else:
        yield Finding(
            Level.OK, "pattern", subject, f"matches {', '.join(meant)}", code="group_matches"
        )


def _unmatched(subject: str, pattern: HostPattern, domain_names: Sequence[str]) -> Finding:
    if pattern.excludes:
        message = f"{pattern.text} keeps nothing out: no domain matches it"
        return Finding(Level.INFO, "pattern", subject, message, code="exclusion_unmatched")
    if pattern.kind is PatternKind.NAME:
        meant = did_you_mean(pattern.value, domain_names)
        message = f"libvirt knows no domain {pattern.value}{meant}"
        advice = "Correct the name in `hosts`, or take it out: each run fails because of it."
        return Finding(Level.PROBLEM, "pattern", subject, message, advice, code="domain_unknown")
    message = f"{pattern.text} matches no domain"
    advice = "A regex is matched from the start of the name on."
    return Finding(Level.WARNING, "pattern", subject, message, advice, code="pattern_unmatched")

"""What to do now, each with the command to paste."""

from collections.abc import Iterable, Iterator, Sequence

from virtbackup_async.model.amounts import age, size
from virtbackup_async.model.facts import Facts
from virtbackup_async.reporting.overview.capacity import DAY_S
from virtbackup_async.reporting.overview.parts import (
    Action,
    Capacity,
    Confidence,
    GuestLine,
    Standing,
)
from virtbackup_async.reporting.overview.verdict import listed

_NAMED_MOST = 5
_SOON_S = 30 * DAY_S
_UNREAD_S = 30 * DAY_S


def actions_of(
    facts: Facts,
    lines: Sequence[GuestLine],
    capacity: Iterable[Capacity],
    confidence: Confidence,
) -> tuple[Action, ...]:
    """Return what to do, the most urgent first."""
    found = [
        *_of_targets(facts),
        *_of_contradictions(facts, lines),
        # Without a configuration there is nothing to back up with, and nothing to clean.
        *(() if facts.of_target else _of_leftovers(facts)),
        *(() if facts.of_target else _of_guests(facts, lines)),
        *_of_running(facts),
        *_of_keys(facts),
        *_of_protection(facts),
        *_of_capacity(facts, capacity),
        *_of_confidence(facts, lines, confidence),
    ]
    return tuple(sorted(found, key=lambda action: action.standing))


def _of_targets(facts: Facts) -> Iterator[Action]:
    for target in facts.targets:
        if target.error is not None:
            text = f"See that the target of {listed(target.groups)} is mounted: {target.error}."
            yield Action(Standing.LOST, text, ("ls", "-la", "--", target.path))
    if not facts.groups:
        yield Action(Standing.LOST, f"Add a group to {facts.config}.")
    if facts.hypervisor_error is not None:
        yield Action(Standing.BAD, "See why libvirt does not answer.", _command(facts, "doctor"))


def _of_keys(facts: Facts) -> Iterator[Action]:
    for target in facts.targets:
        if target.recovery_lack is not None:
            text = f"Print a recovery key of {target.path}: {target.recovery_lack}."
            groups = () if facts.of_target else target.groups[:1]
            command = (*facts.program, "key", "paper", *facts.where, *groups)
            yield Action(Standing.BAD, text, command)


def _of_contradictions(facts: Facts, lines: Sequence[GuestLine]) -> Iterator[Action]:
    changed = [line for line in lines if line.contradictions]
    if changed:
        text = (
            f"Find out who changed the backups of {listed([line.name for line in changed])}: they "
            "are older, or others, than this host has seen them."
        )
        yield Action(Standing.BAD, text, _command(facts, "list", *_named(facts, changed)))


def _of_leftovers(facts: Facts) -> Iterator[Action]:
    if facts.leftovers:
        domains = listed([*dict.fromkeys(left.domain for left in facts.leftovers)])
        command = facts.leftovers[0].command
        yield Action(Standing.BAD, f"Undo what killed backups left of {domains}.", command)


def _of_running(facts: Facts) -> Iterator[Action]:
    for one in facts.running:
        since_s = facts.at - one.date
        if since_s > DAY_S:
            process = "" if one.pid is None else f", process {one.pid}"
            text = f"See why {one.domain} has been locked for {age(since_s)}: {one.doing}{process}."
            yield Action(Standing.LOOK, text)


def _of_guests(facts: Facts, lines: Sequence[GuestLine]) -> Iterator[Action]:
    groups = dict.fromkeys(line.group for line in lines)
    for group in groups:
        mine = [line for line in lines if line.group == group]
        bad = [one for one in mine if one.standing in (Standing.LOST, Standing.BAD)]
        own = [one for one in bad if one.host is None]
        others = [one for one in bad if one.host is not None]
        if own:
            text = f"Back up {listed([line.domain for line in own])}."
            worst = min(line.standing for line in own)
            yield Action(worst, text, _command(facts, "backup", *_named(facts, own)))
        if others:
            hosts = listed([*dict.fromkeys(one.host for one in others if one.host)])
            text = f"Back up {listed([line.name for line in others])}, on {hosts}."
            yield Action(min(line.standing for line in others), text)
        for line in mine:
            if line.jump is not None:
                name = line.name if line.host else line.domain
                text = (
                    f"Find out whether {name} was attacked: in backup {line.jump.backup}, "
                    f"{line.jump.reason}. If not, accept that."
                )
                yield Action(Standing.BAD, text, line.jump.command)
        grown = [line for line in mine if line.growth is not None]
        if grown:
            names = listed([line.name if line.host else line.domain for line in grown])
            text = f"See what {names} {'writes' if len(grown) == 1 else 'write'}: more than usual."
            yield Action(Standing.LOOK, text)


def _named(facts: Facts, *of_groups: Sequence[GuestLine]) -> Iterator[str]:
    """Yield the words that mean these guests; of a group with many of them, the group."""
    words = [word for lines in of_groups for word in _named_of_group(facts, lines)]
    yield from ("--",) if any(word.startswith("-") for word in words) else ()
    yield from words


def _named_of_group(facts: Facts, lines: Sequence[GuestLine]) -> list[str]:
    groups = {name for name, _ in facts.groups}
    if len(lines) > _NAMED_MOST:
        return [lines[0].group]
    return [
        line.domain if line.name == line.domain not in groups else f"{line.group}/{line.domain}"
        for line in lines
    ]


def _of_protection(facts: Facts) -> Iterator[Action]:
    if facts.unclaimed:
        text = f"Put {listed(facts.unclaimed)} into a group of {facts.config}, or leave it out."
        yield Action(Standing.LOOK, text)


def _of_capacity(facts: Facts, capacity: Iterable[Capacity]) -> Iterator[Action]:
    for one in capacity:
        full = one.forecast.full if one.forecast else None
        if full is not None and full - facts.at < _SOON_S:
            text = f"Make room in {one.path}: it is full in about {_days(full - facts.at)}."
            command = () if facts.of_target else _command(facts, "clean", "--dry-run")
            yield Action(Standing.BAD, text, command)
        elif one.expired:
            what = "expired backup" if one.expired == 1 else f"{one.expired} expired backups"
            frees = "" if one.expired_bytes is None else f": that frees {size(one.expired_bytes)}"
            text = f"Remove the {what} in {one.path}{frees}."
            yield Action(Standing.GOOD, text, _command(facts, "clean"))


def _days(seconds: float) -> str:
    days = max(0, round(seconds / DAY_S))
    return "1 day" if days == 1 else f"{days} days"


def _of_confidence(
    facts: Facts, lines: Sequence[GuestLine], confidence: Confidence
) -> Iterator[Action]:
    if confidence.damaged:
        guests = dict.fromkeys(guest for guest, _, _ in confidence.damaged)
        text = f"Look into the damaged backups of {listed([*guests])}."
        damaged = [line for line in lines if line.name in guests]
        groups = dict.fromkeys(line.group for line in damaged)
        of_groups = ([line for line in damaged if line.group == group] for group in groups)
        yield Action(Standing.LOOK, text, _command(facts, "list", *_named(facts, *of_groups)))
    oldest = confidence.oldest_unverified
    if oldest is not None and facts.at - oldest[1].date > _UNREAD_S:
        command = _command(facts, "verify", "--not-verified-since", "30d")
        yield Action(Standing.GOOD, "Read back backups that were never verified.", command)


def _command(facts: Facts, command: str, *words: str) -> tuple[str, ...]:
    return (*facts.program, command, *facts.where, *words)

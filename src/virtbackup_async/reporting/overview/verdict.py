"""The sentence that comes first: can every guest be restored, and to when?

The sentence never claims more than is known: a target that cannot be read, or a configuration
without groups, comes before all else.
"""

from collections.abc import Iterable, Iterator, Sequence

from virtbackup_async.config.schema import USUAL_MAX_AGE
from virtbackup_async.model.amounts import age
from virtbackup_async.model.backup import BackupState
from virtbackup_async.model.facts import Facts
from virtbackup_async.reporting.overview.parts import (
    GuestLine,
    Standing,
    Verdict,
)

_NAMED = 5
_USUAL_S = USUAL_MAX_AGE.total_seconds()


def verdict_of(facts: Facts, lines: Sequence[GuestLine]) -> Verdict:
    """Return the sentence of an overview; ``lines`` are all guests."""
    counted = [line for line in lines if line.standing is not Standing.RETIRED]
    more = tuple(_more(facts, counted))
    broken = [target for target in facts.targets if target.error is not None]
    if broken:
        paths = listed([target.path for target in broken])
        unknown = sum(line.standing is Standing.UNKNOWN for line in counted)
        noun = "target" if len(broken) == 1 else "targets"
        whose = _guests(unknown) if unknown else "their guests" if broken[1:] else "its guests"
        sentence = (
            f"The {noun} {paths} cannot be read: whether {whose} can be restored is not known."
        )
        rest = [line for line in counted if line.standing is not Standing.UNKNOWN]
        others = (_of_guests(rest).sentence,) if rest else ()
        return Verdict(Standing.UNKNOWN, sentence, (*others, *more))
    if not facts.groups:
        return Verdict(Standing.BAD, "Nothing is backed up: the configuration has no groups.", more)
    if not facts.targets:
        return Verdict(Standing.BAD, "Nothing is backed up: no group has a target.", more)
    if facts.of_target:
        verdict = _of_target(facts, counted)
        return Verdict(verdict.standing, verdict.sentence, (*verdict.more, *more))
    if not counted:
        return Verdict(Standing.BAD, "Nothing is backed up: no group matches a guest.", more)
    verdict = _of_guests(counted)
    return Verdict(verdict.standing, verdict.sentence, (*verdict.more, *more))


def _of_guests(lines: Sequence[GuestLine]) -> Verdict:
    bad = [line for line in lines if line.standing in (Standing.LOST, Standing.BAD)]
    when = _when(lines)
    if bad:
        never = [line for line in bad if line.newest is None]
        subject = f"{len(bad)} of {_guests(len(lines))}" if len(lines) > 1 else "The only guest"
        sentence = f"{subject} cannot be restored to {when}: {_names(bad)}."
        more = (f"Of {_names(never)} there is no good backup at all.",) if never else ()
        return Verdict(min(line.standing for line in bad), sentence, more)
    standing = min(line.standing for line in lines)
    if len(lines) == 1:
        return Verdict(standing, f"The only guest, {lines[0].name}, can be restored to {when}.")
    return Verdict(standing, f"All {len(lines)} guests can be restored to {when}.")


def _of_target(facts: Facts, lines: Sequence[GuestLine]) -> Verdict:
    """Return what a target alone says: what its guests can be restored to, and not what is late."""
    if not lines:
        return Verdict(Standing.BAD, f"There is no backup in {facts.config}.")
    standing = min(line.standing for line in lines)
    without = [line for line in lines if line.newest is None]
    if without:
        subject = f"{len(without)} of {_guests(len(lines))}" if len(lines) > 1 else "The only guest"
        sentence = f"{subject} in {facts.config} cannot be restored: {_names(without)}."
        return Verdict(standing, sentence)
    oldest = age(max(line.age_s or 0.0 for line in lines))
    if len(lines) == 1:
        sentence = f"The only guest in {facts.config}, {lines[0].name}, can be restored"
        return Verdict(standing, f"{sentence}; its newest good backup is {oldest} old.")
    sentence = f"All {len(lines)} guests in {facts.config} can be restored"
    return Verdict(
        standing, f"{sentence}; the oldest of their newest good backups is {oldest} old."
    )


def _when(lines: Sequence[GuestLine]) -> str:
    """Return the promised moment: a different one if a group allows more than a day."""
    if all(line.max_age_s is not None and line.max_age_s <= _USUAL_S for line in lines):
        return "last night"
    return "the age that their groups allow" if len(lines) > 1 else "the age that its group allows"


def _more(facts: Facts, lines: Sequence[GuestLine]) -> Iterator[str]:
    if facts.of_target:
        yield (
            "Without a configuration and libvirt it is not known how old backups may be, which "
            "guests have none, and what runs next."
        )
    elif facts.hypervisor_error is not None:
        yield (
            "libvirt did not answer: guests that no group means are not known "
            f"({facts.hypervisor_error})."
        )
    elif facts.unclaimed:
        count, are = len(facts.unclaimed), "is" if len(facts.unclaimed) == 1 else "are"
        yield f"{_guests(count)} {are} in no group, and not backed up."
    changed = [line for line in lines if line.contradictions]
    if changed:
        whose = f"The backups of {_names(changed)}"
        yield f"{whose} are OLDER, or others, than this host has seen them."
    known = [line for line in lines if line.newest is not None]
    unread = sum(line.state is BackupState.UNVERIFIED for line in known)
    if known and unread:
        whose = f"{unread} of the {len(known)} newest backups are"
        yield f"{'Its newest backup is' if len(known) == 1 else whose} not verified yet."


def _guests(count: int) -> str:
    return "1 guest" if count == 1 else f"{count} guests"


def _names(lines: Iterable[GuestLine]) -> str:
    return listed([line.name for line in lines])


def listed(names: Sequence[str]) -> str:
    """Return the first names: ``a``, ``a and b``, ``a, b, c, d, e and 3 more``."""
    shown = [*names[:_NAMED]]
    if len(names) > _NAMED:
        shown.append(f"{len(names) - _NAMED} more")
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1] if shown else "")))

"""Each guest: which backup would be restored, how old it is, and what is wrong."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from virtbackup_async.model.amounts import age
from virtbackup_async.model.backup import BackupState
from virtbackup_async.model.facts import BackupFacts, Facts, GuestFacts
from virtbackup_async.model.run_record import DomainRun, Outcome
from virtbackup_async.reporting.overview.days import (
    DAYS,
    LocalDays,
    days_of,
    imperfections,
)
from virtbackup_async.reporting.overview.felt import felt_of
from virtbackup_async.reporting.overview.growth import added_by_day, growth_of
from virtbackup_async.reporting.overview.parts import (
    UNKNOWN_DAY,
    GuestLine,
    Standing,
    state_of,
)
from virtbackup_async.reporting.overview.runs import CLOCK_SLACK_S, Key

TARGET_UNREADABLE = "its target cannot be read"


class Context(Struct, frozen=True):
    """The facts by which all guests are judged.

    Attributes:
        unreadable: targets that cannot be read.
        speed: bytes a second of the last ``verify``; None if unknown.
    """

    at: float
    days: LocalDays
    names: Mapping[Key, str]
    attempts: Mapping[Key, Sequence[DomainRun]]
    unreadable: frozenset[str]
    speed: float | None


def names_of(facts: Facts) -> dict[Key, str]:
    """Return each guest's name: its domain, with the group if the domain is in several.

    Of two guests of one name in a target, the name has the host, or is the UUID.
    """
    groups = Counter(word for _, word in (guest.key for guest in facts.guests))
    keys = (guest.key for guest in facts.guests)
    return {
        (group, word): word if groups[word] == 1 else f"{word} ({group})" for group, word in keys
    }


def guest_line(guest: GuestFacts, context: Context) -> GuestLine:
    """Return the conclusions about a guest."""
    key = guest.key
    if guest.target in context.unreadable:
        return GuestLine(
            context.names[key],
            guest.group,
            guest.domain,
            guest.target,
            Standing.UNKNOWN,
            None,
            guest.max_age_s,
            (TARGET_UNREADABLE,),
            days=(UNKNOWN_DAY,) * DAYS,
            host=guest.host,
            uuid=guest.uuid,
        )
    attempts = context.attempts.get(key, ())
    newest = _newest(guest.backups, context.at)
    age_s = max(0.0, context.at - newest.date) if newest else None
    standing, reasons = _judged(guest, newest, attempts, context.at)
    added = added_by_day(guest.backups, attempts, context.days)
    return GuestLine(
        name=context.names[key],
        group=guest.group,
        domain=guest.domain,
        target=guest.target,
        standing=standing,
        state=_state(guest, newest),
        max_age_s=guest.max_age_s,
        reasons=reasons,
        newest=newest,
        age_s=age_s,
        newest_verified=next((b for b in reversed(guest.backups) if b.verified), None),
        backups=len(guest.backups) + len(guest.broken),
        stored_bytes=sum(backup.stored_bytes for backup in guest.backups),
        days=days_of(guest, attempts, context.days),
        added=added,
        growth=growth_of(added, context.days),
        jump=guest.jump,
        head=guest.head,
        contradictions=guest.contradictions,
        felt=felt_of(guest.backups, attempts, context.at + CLOCK_SLACK_S),
        restore_s=newest.data_bytes / context.speed if newest and context.speed else None,
        host=guest.host,
        uuid=guest.uuid,
    )


def _newest(backups: Sequence[BackupFacts], at: float) -> BackupFacts | None:
    """Return the newest good backup; one that is dated in the future could be of any age."""
    latest = at + CLOCK_SLACK_S
    good = (b for b in reversed(backups) if b.verified is not False and b.date <= latest)
    return next(good, None)


def _state(guest: GuestFacts, newest: BackupFacts | None) -> BackupState | None:
    if newest is not None:
        return state_of(newest)
    if guest.backups:
        return state_of(guest.backups[-1])
    return BackupState.BROKEN if guest.broken else None


def _judged(
    guest: GuestFacts,
    newest: BackupFacts | None,
    attempts: Sequence[DomainRun],
    at: float,
) -> tuple[Standing, tuple[str, ...]]:
    look = tuple(_imperfect(guest, newest, attempts, at))
    if newest is None:
        return _without_good(guest, look)
    if guest.is_known is False:
        # Of a domain that is gone, only a run that still tries to back it up is a problem.
        changed = (one.message for one in guest.contradictions)
        failed = (*changed, *_failed(newest, attempts))
        return (Standing.LOOK, failed) if failed else (Standing.RETIRED, ())
    age_s = at - newest.date
    if guest.max_age_s is not None and age_s > guest.max_age_s:
        old = f"its newest good backup is {age(age_s)} old, {age(guest.max_age_s)} are allowed"
        return Standing.BAD, (old, *look)
    return (Standing.LOOK if look else Standing.GOOD), look


def _without_good(guest: GuestFacts, look: tuple[str, ...]) -> tuple[Standing, tuple[str, ...]]:
    damaged = sum(backup.verified is False for backup in guest.backups)
    counts = ((damaged, "damaged"), (len(guest.broken), "broken"))
    found = [f"{count} {word}" for count, word in counts if count]
    if found:
        return Standing.LOST, (f"none of its backups is good: {', '.join(found)}", *look)
    if guest.is_known is False:
        return Standing.BAD, ("its group names it, and libvirt knows no such domain",)
    return Standing.BAD, ("it has no backup", *look)


def _imperfect(
    guest: GuestFacts,
    newest: BackupFacts | None,
    attempts: Sequence[DomainRun],
    at: float,
) -> Iterator[str]:
    """Yield the problems of a guest, except for the age of its newest good backup."""
    yield from (one.message for one in guest.contradictions)
    yield from _failed(newest, attempts)
    if guest.jump is not None:
        yield f"in backup {guest.jump.backup}, {guest.jump.reason}"
    future = [backup for backup in guest.backups if backup.date > at + CLOCK_SLACK_S]
    if future:
        yield f"a backup is dated {age(future[-1].date - at)} in the future"
    if newest is None:
        return
    later = sum(b.date > newest.date and b.verified is False for b in guest.backups[-10:])
    broken = sum((one.date or 0) > newest.date for one in guest.broken)
    if later or broken:
        yield "a newer backup is damaged" if later else "a newer backup is broken"
    elif guest.broken:
        yield f"{len(guest.broken)} of its backups cannot be read"
    elif any(backup.verified is False for backup in guest.backups):
        yield "verify found older backups damaged"
    yield from imperfections(newest)
    if newest.audit_failed:
        yield "an audit found its dirty bitmap wrong, it was read in full"


def _failed(newest: BackupFacts | None, attempts: Sequence[DomainRun]) -> Iterator[str]:
    last = attempts[-1] if attempts else None
    if last is None or last.outcome != Outcome.FAILED:
        return
    if newest is None or last.end > newest.date:
        yield f"the last backup failed: {last.error or 'no reason was recorded'}"

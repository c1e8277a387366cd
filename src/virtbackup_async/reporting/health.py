"""Whether every guest has a good backup that is young enough, in the terms of monitoring plugins.

::

    0 ok         each guest has one
    1 warning    each guest has one, and something else is wrong with a guest
    2 critical   some guest has none that is young enough, or its target was changed
    3 unknown    a target cannot be read, or there is no guest

Pure. The line has no ``|`` but the one before the performance data, and no line break.
"""

from collections.abc import Iterable, Sequence
from math import inf
from typing import Final

from virtbackup_async.events import GuestHealth, HealthChecked
from virtbackup_async.model.amounts import age
from virtbackup_async.reporting.overview.parts import GuestLine, Overview, Standing
from virtbackup_async.reporting.text import count, printable

OK, WARNING, CRITICAL, UNKNOWN = "ok", "warning", "critical", "unknown"
EXIT_CODES: Final = {OK: 0, WARNING: 1, CRITICAL: 2, UNKNOWN: 3}
_GRAVITY: Final = (OK, WARNING, UNKNOWN, CRITICAL)
_SHOWN: Final = 5


def health_of(
    overview: Overview, words: Sequence[str] = (), max_age_s: float | None = None
) -> HealthChecked:
    """Return the health of the guests.

    Args:
        overview: all that is known.
        words: groups or domains to look at alone, also as HOST/DOMAIN or UUID; none for all.
        max_age_s: how old the newest good backup may be; None for what each group says, which is
            no limit where that is not known.
    """
    guests = [
        guest
        for guest in overview.guests
        if guest.standing is not Standing.RETIRED
        and (not words or {guest.group, guest.domain, guest.name, guest.uuid} & {*words})
    ]
    found = [health for guest in guests if (health := _of_guest(guest, max_age_s)) is not None]
    ages = [guest.age_s for guest in guests if guest.age_s is not None]
    status = max((one.status for one in found), key=_GRAVITY.index, default=OK)
    if not guests:
        status = UNKNOWN
    limits = {guest.max_age_s for guest in guests} if max_age_s is None else {max_age_s}
    limit_s = min(filter(None, limits), default=inf)
    sentence = _sentence(guests, found, status) if guests else _no_guest(overview)
    line = f"VIRTBACKUP {status.upper()} - {sentence}"
    data = _performance(guests, found, max(ages, default=None), limit_s)
    return HealthChecked(
        status=status,
        exit_code=EXIT_CODES[status],
        message=f"{_one_line(line)} | {data}",
        guests=len(guests),
        oldest_s=max(ages, default=None),
        found=tuple(found),
    )


def unknown(reason: str) -> HealthChecked:
    """Return the health where nothing could be found out."""
    line = _one_line(f"VIRTBACKUP UNKNOWN - {reason}")
    return HealthChecked(UNKNOWN, EXIT_CODES[UNKNOWN], line, 0, None)


def _of_guest(guest: GuestLine, max_age_s: float | None) -> GuestHealth | None:
    status, reason = _judged(guest, guest.max_age_s if max_age_s is None else max_age_s)
    if status == OK:
        return None
    return GuestHealth(
        guest.name,
        guest.group,
        guest.domain,
        status,
        reason,
        guest.age_s,
        guest.uuid,
        guest.host,
    )


def _judged(guest: GuestLine, limit_s: float | None) -> tuple[str, str]:
    if guest.standing is Standing.UNKNOWN:
        return UNKNOWN, "its target cannot be read"
    if guest.contradictions:
        return CRITICAL, guest.contradictions[0].message
    if guest.age_s is None:
        return CRITICAL, next(iter(guest.reasons), "it has no good backup")
    if limit_s is not None and guest.age_s > limit_s:
        return CRITICAL, f"{age(guest.age_s)} old"
    if guest.standing is Standing.LOOK:
        return WARNING, next(iter(guest.reasons), "look at it")
    return OK, ""


def _no_guest(overview: Overview) -> str:
    errors = (target.error for target in overview.capacity if target.error is not None)
    return next(errors, "no guest has been found")


def _sentence(guests: Sequence[GuestLine], found: Sequence[GuestHealth], status: str) -> str:
    if status == OK:
        return f"{count(len(guests), 'guest')} can be restored"
    worst = [one for one in found if one.status == status]
    names = ", ".join(f"{one.guest} ({one.reason})" for one in worst[:_SHOWN])
    more = f" and {len(worst) - _SHOWN} more" if len(worst) > _SHOWN else ""
    is_one = len(worst) == 1
    is_changed = any(guest.contradictions for guest in guests)
    changed = ", or backups that were changed" if is_changed else ""
    what = {
        CRITICAL: f"{'has' if is_one else 'have'} no good backup that is young enough{changed}",
        UNKNOWN: f"{'is' if is_one else 'are'} not known",
        WARNING: "can be restored, with a flaw",
    }[status]
    who = "the only guest" if len(guests) == 1 else f"{len(worst)} of {len(guests)} guests"
    return f"{who} {what}: {names}{more}"


def _performance(
    guests: Sequence[GuestLine],
    found: Iterable[GuestHealth],
    oldest_s: float | None,
    limit_s: float,
) -> str:
    bad = sum(one.status == CRITICAL for one in found)
    oldest = "U" if oldest_s is None else f"{oldest_s:.0f}s"
    limit = "" if limit_s == inf else f"{limit_s:.0f}"
    return f"oldest={oldest};;{limit};0; guests={len(guests)};;;0; bad={bad};;0;0;{len(guests)}"


def _one_line(text: str) -> str:
    return printable(text).replace("|", "/")

"""The page as a mail: the most important part as text, and the page itself attached.

::

    [virtbackup] host1: 39 ok, 3 FAILED (db-1, mail, ns2)
"""

from collections.abc import Iterator
from datetime import tzinfo
from typing import Final

from virtbackup_async.model.amounts import size
from virtbackup_async.reporting.overview.parts import (
    Capacity,
    GuestLine,
    Overview,
    Standing,
)
from virtbackup_async.reporting.overview.verdict import listed
from virtbackup_async.reporting.page.words import KINDS, Words, counted
from virtbackup_async.reporting.text import command_line, printable

_INTERVALS_S: Final = {"daily": 86_400, "weekly": 7 * 86_400}
# A mail is also due if a run begins a little earlier in the day than the last mailing run.
_SLACK_S: Final = 6 * 3600
_DAYS: Final = 14
_GUESTS: Final = 20
_HEADS: Final = 500
_NOT_GOOD = (Standing.LOST, Standing.BAD, Standing.UNKNOWN)


def is_due(how_often: str, last: int | None, at: float) -> bool:
    """Return whether a mail is due.

    Args:
        how_often: ``never``, ``daily`` or ``weekly``.
        last: when the last one was sent, in seconds since the epoch; None if never. One that is
            in the future counts as never: the clock was wrong.
        at: now.
    """
    interval_s = _INTERVALS_S.get(how_often)
    if interval_s is None:
        return False
    return last is None or last > at or at - last >= interval_s - _SLACK_S


def subject(overview: Overview) -> str:
    """Return the mail's subject, which says all that matters."""
    bad = [guest.name for guest in overview.guests if guest.standing in _NOT_GOOD]
    counted_in = [g for g in overview.guests if g.standing is not Standing.RETIRED]
    fine = len(counted_in) - len(bad)
    start = f"[virtbackup] {overview.host}: "
    if not counted_in or (overview.verdict.standing in _NOT_GOOD and not bad):
        return printable(start + overview.verdict.sentence)
    failed = f", {len(bad)} FAILED ({listed(bad)})" if bad else ""
    return printable(f"{start}{fine} ok{failed}")


def text(overview: Overview, zone: tzinfo | None = None) -> str:
    """Return the mail's text."""
    says = Words(overview.at, zone)
    return "\n".join(printable(line) for line in _lines(overview, says)) + "\n"


def _lines(overview: Overview, says: Words) -> Iterator[str]:
    yield overview.verdict.sentence
    yield from overview.verdict.more
    yield ""
    yield "To do now:" if overview.actions else "There is nothing to do."
    for action in overview.actions:
        yield f"- {action.text}"
        if command := command_line(action.command):
            yield f"    {command}"
    wrong = [g for g in overview.guests if g.standing in (*_NOT_GOOD, Standing.LOOK)]
    if wrong:
        yield from _days(wrong[:_GUESTS], overview, says)
    if overview.capacity:
        yield ""
        yield "Space:"
        for one in overview.capacity:
            yield f"- {space_in_words(one, says)}"
    heads = [f"- {guest.head} {guest.name}" for guest in overview.guests if guest.head]
    if heads:
        yield ""
        yield "Heads, to compare with later:"
        yield from heads[:_HEADS]
        if len(heads) > _HEADS:
            yield f"- and {len(heads) - _HEADS} more: virtbackup list --json has them"
    yield ""
    yield f"{says.made_at}, virtbackup {overview.version}, {overview.config}"


def _days(guests: list[GuestLine], overview: Overview, says: Words) -> Iterator[str]:
    first = says.day(overview.days[-_DAYS].day)
    yield ""
    yield f"The last {_DAYS} days, from {first} to today:"
    for guest in guests:
        yield f"{''.join(day.kind for day in guest.days[-_DAYS:])}  {guest.name}"
        yield from (f"{' ' * _DAYS}  {reason}" for reason in guest.reasons)
    seen = {day.kind for guest in guests for day in guest.days[-_DAYS:]}
    yield "; ".join(f"{kind}: {name}" for kind, name in KINDS.items() if kind in seen)


def space_in_words(capacity: Capacity, says: Words) -> str:
    """Return the space of a target, and when it runs out, in one line."""
    if capacity.error is not None:
        return f"{capacity.path}: cannot be read: {capacity.error}"
    if not capacity.points:
        return f"{capacity.path}: not known"
    _, used, free = capacity.points[-1]
    line = f"{capacity.path}: {size(used)} of {size(used + free)} used"
    ahead = capacity.forecast
    if ahead is None:
        return f"{line}; {counted(round(capacity.days_known), 'day')} of history, no forecast yet"
    if ahead.full is None:
        return f"{line}; it does not grow noticeably"
    return f"{line}; full about {says.date(ahead.full)}"

"""Which backups of a domain are kept, and why: the retention policy as a pure function.

``clean`` removes the backups that no rule keeps, and ``clean --dry-run`` shows the same decisions.
A rule keeps the first backup of each of the last N periods that have one::

    daily: 2      Mon 02:00   Tue 02:00  Tue 14:00   Fri 02:00  Fri 14:00
                              ^ first               ^ first     ^ the newest, always kept

Periods are those of the local calendar: weeks are ISO weeks of the ISO year, and an hour that
comes twice when summer time ends is two hours. Invariants: the newest good backup is kept, and so
are pinned ones. A backup that is dated in the future, or was found damaged, is kept and does not
count: in a rule it would take the place of a good one. With ``drop_damaged``, a damaged backup is
removed if a newer one is good. A backup is good unless it is known to be damaged.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from itertools import chain
from typing import TypeVar

from msgspec import Struct

from virtbackup_async.catalog.scanning import FoundBackup
from virtbackup_async.config.schema import Retention
from virtbackup_async.engine.clean.jumps import Jump, before_jump
from virtbackup_async.engine.clean.protection import CONTRADICTED, UNPROTECTED, Protection
from virtbackup_async.model.target_file import TargetFile

T = TypeVar("T")

EXPIRED = "no rule keeps it"
DAMAGED = "damaged, does not count"
BEFORE_JUMP = "its data changed suddenly, then or later"
DROPPED = "damaged, and a newer one is good"


def _iso_week(moment: datetime) -> str:
    year, week, _ = moment.isocalendar()
    return f"{year}-W{week:02}"


# Each rule's noun, and the label of the period that a moment is in: equal for the same period only.
_PERIODS: Mapping[str, tuple[str, Callable[[datetime], str]]] = {
    "hourly": ("hour", lambda moment: f"{moment:%Y-%m-%d %H:00%z}"),
    "daily": ("day", lambda moment: f"{moment:%Y-%m-%d}"),
    "weekly": ("ISO week", _iso_week),
    "monthly": ("month", lambda moment: f"{moment:%Y-%m}"),
    "yearly": ("year", lambda moment: f"{moment:%Y}"),
}


class RetentionDecision(Struct, frozen=True):
    """Whether a backup is kept, and why: all reasons to keep it, or the one to remove it.

    ``jump`` is that of its domain, if its data changed suddenly.
    """

    found: FoundBackup
    keep: bool
    reasons: tuple[str, ...]
    jump: Jump | None = None


def decide(  # noqa: PLR0913 -- the policy, and all that it depends on
    backups: Iterable[FoundBackup],
    policies: Sequence[Retention],
    now: datetime,
    zone: tzinfo | None = None,
    *,
    drop_damaged: bool = False,
    protection: Protection = UNPROTECTED,
    jump: Jump | None = None,
) -> list[RetentionDecision]:
    """Decide about each backup of one domain, oldest first.

    Args:
        backups: all complete ones of the domain in one target.
        policies: of every group that includes the domain; a backup is kept if any of them keeps it.
        now: an aware time; backups dated later are kept, and no rule counts them.
        zone: the time zone of the periods; None for the local one.
        drop_damaged: whether to drop damaged backups that are older than a good one.
        protection: keeps what the target got lately; no rule counts a date that contradicts the
            target's clock.
        jump: keeps all backups from before it, and itself.
    """
    ordered = sorted(backups, key=lambda found: (found.definition.date, found.path.name))
    past = [
        found
        for found in ordered
        if found.definition.date <= now.timestamp() and not protection.contradicts(found)
    ]
    good = [found for found in past if not found.definition.is_damaged]
    dropped = set(_older_and_damaged(past, good)) if drop_damaged else frozenset[TargetFile]()
    kept: dict[TargetFile, list[str]] = {found.path: [] for found in ordered}
    protected = ((found, why) for found in ordered if (why := protection.reason(found)))
    kept_by_jump = ((found, BEFORE_JUMP) for found in before_jump(jump, ordered))
    by_rules = _reasons(ordered, good, policies, zone, protection)
    for found, reason in chain(by_rules, protected, kept_by_jump):
        if reason not in kept[found.path] and not (reason == DAMAGED and found.path in dropped):
            kept[found.path].append(reason)
    return [
        RetentionDecision(
            found,
            bool(kept[found.path]),
            tuple(kept[found.path]) or (_removal_reason(found),),
            jump,
        )
        for found in ordered
    ]


def _older_and_damaged(
    past: Sequence[FoundBackup], good: Sequence[FoundBackup]
) -> Iterator[TargetFile]:
    if good:
        before = past[: past.index(good[-1])]
        yield from (found.path for found in before if found.definition.is_damaged)


def _removal_reason(found: FoundBackup) -> str:
    return DROPPED if found.definition.is_damaged else EXPIRED


def _reasons(
    ordered: Sequence[FoundBackup],
    good: Sequence[FoundBackup],
    policies: Sequence[Retention],
    zone: tzinfo | None,
    protection: Protection,
) -> Iterator[tuple[FoundBackup, str]]:
    """Yield each reason to keep a backup, strongest first; only ``good`` ones count."""
    counted = frozenset(found.path for found in good)
    for found in ordered:
        if found.definition.pinned:
            yield found, "pinned"
    for found in ordered:
        if found.path not in counted:
            contradicts = CONTRADICTED if protection.contradicts(found) else "dated in the future"
            yield found, DAMAGED if found.definition.is_damaged else contradicts
    for found in good[-1:]:
        yield found, "newest"
    dated = [
        (datetime.fromtimestamp(found.definition.date, UTC).astimezone(zone), found)
        for found in good
    ]
    for policy in policies:
        for found in _last(good, policy.keep_last):
            yield found, "one of the newest"
        for rule, (noun, label_of) in _PERIODS.items():
            for label, found in _last(_firsts(dated, label_of), getattr(policy, rule)):
                yield found, f"first of {noun} {label}"


def _firsts(
    dated: Sequence[tuple[datetime, FoundBackup]], label_of: Callable[[datetime], str]
) -> list[tuple[str, FoundBackup]]:
    """Return the oldest backup of each period that has one, in order."""
    firsts: dict[str, FoundBackup] = {}
    for moment, found in dated:
        firsts.setdefault(label_of(moment), found)
    return list(firsts.items())


def _last(items: Sequence[T], count: int | None) -> Sequence[T]:
    """Return the last ``count`` items; all for None."""
    return items if count is None else items[max(0, len(items) - count) :]

"""How much of the backups is proven, and how much space all of them take."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from virtbackup_async.model.backup import BackupState
from virtbackup_async.model.facts import BackupFacts, Facts, GuestFacts
from virtbackup_async.reporting.overview.parts import (
    Confidence,
    GuestLine,
    Totals,
    state_of,
)
from virtbackup_async.reporting.overview.runs import Key

DAY_S = 86_400
_RECENT_S = 30 * DAY_S
DAMAGED_SHOWN = 20


def confidence_of(
    facts: Facts, names: Mapping[Key, str], read_bytes_per_s: float | None
) -> Confidence:
    """Return how much of the backups is proven."""
    counts: Counter[BackupState] = Counter()
    since = facts.at - _RECENT_S
    stored = read_back = audits = failures = 0
    oldest: tuple[str, BackupFacts] | None = None
    for guest in facts.guests:
        name = names[guest.key]
        counts[BackupState.BROKEN] += len(guest.broken)
        for backup in guest.backups:
            counts[state_of(backup)] += 1
            stored += backup.stored_bytes
            if backup.verified and (backup.verified_date or 0) >= since:
                read_back += backup.stored_bytes
            if backup.verified is None and (oldest is None or backup.date < oldest[1].date):
                oldest = name, backup
            if backup.audited_bytes and backup.date >= since:
                audits += not backup.audit_failed
                failures += backup.audit_failed
    return Confidence(
        tuple((state, counts[state]) for state in BackupState if counts[state]),
        read_back,
        stored,
        oldest,
        audits,
        failures,
        tuple(_damaged(facts.guests, names)),
        read_bytes_per_s,
    )


def _damaged(
    guests: Iterable[GuestFacts], names: Mapping[Key, str]
) -> Iterator[tuple[str, str, str]]:
    for guest in guests:
        name = names[guest.key]
        for one in guest.broken:
            yield name, one.name, one.error
        for backup in guest.backups:
            if backup.verified is False:
                yield name, backup.name, "verify found it damaged"


def totals_of(facts: Facts, lines: Sequence[GuestLine]) -> Totals:
    """Return how much data the backups hold, and how much space they take, in all targets together.

    In a repository equal data is held once; elsewhere all data counts as unique.
    """
    newest = [line.newest for line in lines if line.newest is not None]
    in_repository = {t.path for t in facts.targets if t.repository is not None}
    outside = [g for g in facts.guests if g.target not in in_repository]
    stores = [target.repository for target in facts.targets if target.repository is not None]
    loose_data, loose_stored = _sums(outside)
    mixed_data, _ = _sums(g for g in facts.guests if g.target in in_repository)
    return Totals(
        disk_bytes=sum(backup.size_bytes for backup in newest),
        used_bytes=sum(backup.data_bytes for backup in newest),
        all_bytes=loose_data + mixed_data,
        unique_bytes=loose_data + sum(store.chunk_bytes for store in stores),
        stored_bytes=loose_stored + sum(store.stored_bytes for store in stores),
        backups=sum(len(guest.backups) for guest in facts.guests),
    )


def _sums(guests: Iterable[GuestFacts]) -> tuple[int, int]:
    data = stored = 0
    for guest in guests:
        for backup in guest.backups:
            data += backup.data_bytes
            stored += backup.stored_bytes
    return data, stored

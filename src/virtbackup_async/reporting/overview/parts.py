"""The values that an overview consists of.

Dates are seconds since the epoch, days are ``date.toordinal`` of the local calendar.
"""

from enum import IntEnum, StrEnum

from msgspec import Struct

from virtbackup_async.model.backup import BackupState
from virtbackup_async.model.facts import (
    BackupFacts,
    Calendar,
    Contradicted,
    JumpFacts,
    Leftover,
    RunningBackup,
)
from virtbackup_async.model.run_record import DomainRun, RunRecord


class Standing(IntEnum):
    """The state of a guest, the worst first: guests are sorted by it."""

    LOST = 0
    """There are backups, or were, and none can be restored."""
    BAD = 1
    """There is no good backup, or it is older than its group allows."""
    UNKNOWN = 2
    """Its target cannot be read."""
    LOOK = 3
    """It can be restored, but something is wrong."""
    GOOD = 4
    RETIRED = 5
    """libvirt does not know the domain any more: its backups are old by nature."""


def state_of(backup: BackupFacts) -> BackupState:
    """Return the state of a complete backup."""
    if backup.verified is None:
        return BackupState.UNVERIFIED
    return BackupState.GOOD if backup.verified else BackupState.DAMAGED


class DayKind(StrEnum):
    """The kinds of days of a guest; each is one letter where there is no colour."""

    VERIFIED = "v"
    MADE = "m"
    PARTIAL = "p"
    """Made, but not quiesced, or without some disk."""
    EXPIRED = "e"
    """Made, and removed since."""
    FAILED = "f"
    DAMAGED = "d"
    NONE = "n"
    UNKNOWN = "u"


class Day(Struct, frozen=True, gc=False):
    """One guest on one day.

    Attributes:
        backup: the newest good one of that day, or else the newest.
        run: the run that made it, or that failed.
        backups: how many were made that day and still exist.
        detail: what is wrong, in words; empty if nothing is.
    """

    kind: DayKind
    backup: BackupFacts | None = None
    run: DomainRun | None = None
    backups: int = 0
    detail: str = ""


NO_DAY = Day(DayKind.NONE)
UNKNOWN_DAY = Day(DayKind.UNKNOWN)


class Growth(Struct, frozen=True):
    """A guest that adds more to its target than usual.

    Attributes:
        factor: how many times as much as usual, on the days since then.
        since: the first of these days.
        recent_bytes: added a day, the mean of these days.
        usual_bytes: the same of the 30 days before, the median.
    """

    factor: float
    since: int
    recent_bytes: float
    usual_bytes: float


class Felt(Struct, frozen=True):
    """What a guest felt of its last backup, and of those of the last 35 days.

    Attributes:
        date: of the last one.
        frozen_ms: how long it was frozen for it; None if it was not.
        usual_ms: the median of the others; None if they are too few.
        longest_ms: the longest of all.
        longest_date: when that was.
        overlay_s: how long the guest was on overlays; None if it was not, or that is not known.
        usual_s: the median of the others; None if they are too few.
        is_raised: whether one of both is much longer than usual.
    """

    date: float
    frozen_ms: int | None
    usual_ms: float | None
    longest_ms: int | None
    longest_date: float | None
    overlay_s: float | None
    usual_s: float | None
    is_raised: bool


class Change(Struct, frozen=True):
    """Something that is not as it was before, in words."""

    at: float
    text: str


class GuestLine(Struct, frozen=True):
    """One guest in one group.

    Attributes:
        name: the domain, with its group if it is in several.
        state: of the newest good backup; without one, of the newest; None if there is none.
        reasons: what is wrong, the gravest first; empty if nothing is.
        newest: the newest good backup.
        age_s: its age; None without one.
        newest_verified: the newest backup that ``verify`` has read and found intact.
        backups: how many exist, broken ones included.
        stored_bytes: how much space they take.
        added: bytes added on each day of the heat map.
        felt: what it felt of its backups; None if that is not known.
        jump: the first sudden change of its data that nobody has accepted.
        restore_s: how long reading ``newest`` takes, at the speed of the last ``verify``.
        head: number and hash of its newest definition, to compare with later.
        contradictions: what this host has seen otherwise in the target.
        host: the host that it belongs to, if that is another one.
        uuid: the domain's UUID; None if its backups do not say it.
    """

    name: str
    group: str
    domain: str
    target: str
    standing: Standing
    state: BackupState | None
    max_age_s: float | None
    reasons: tuple[str, ...] = ()
    newest: BackupFacts | None = None
    age_s: float | None = None
    newest_verified: BackupFacts | None = None
    backups: int = 0
    stored_bytes: int = 0
    days: tuple[Day, ...] = ()
    added: tuple[int, ...] = ()
    growth: Growth | None = None
    felt: Felt | None = None
    jump: JumpFacts | None = None
    restore_s: float | None = None
    head: str | None = None
    contradictions: tuple[Contradicted, ...] = ()
    host: str | None = None
    uuid: str | None = None


class DaySum(Struct, frozen=True):
    """All guests on one day: how many have which kind."""

    day: int
    counts: tuple[tuple[DayKind, int], ...]

    @property
    def worst(self) -> DayKind:
        """The kind that matters most."""
        return self.counts[0][0] if self.counts else DayKind.NONE


class Verdict(Struct, frozen=True):
    """The one sentence, and what qualifies it."""

    standing: Standing
    sentence: str
    more: tuple[str, ...] = ()


class Action(Struct, frozen=True):
    """Something to do now; ``command`` is empty where no command does it."""

    standing: Standing
    text: str
    command: tuple[str, ...] = ()


class SkippedDisk(Struct, frozen=True):
    """A disk that the newest backup of a guest does not hold, and why."""

    guest: str
    disk: str
    reason: str


class Unprotected(Struct, frozen=True):
    """The domains and disks that are not backed up.

    Attributes:
        is_known: whether there is a configuration to compare with; else only ``disks`` is known.
        domains: those that no group matches.
        disks: those that are skipped.
        groups: those without ``autostart``: backed up only when they are named.
        unclaimed: domains that have backups, but that no group matches any more.
        hypervisor_error: why ``domains`` is not known.
    """

    is_known: bool = True
    domains: tuple[str, ...] = ()
    disks: tuple[SkippedDisk, ...] = ()
    groups: tuple[str, ...] = ()
    unclaimed: tuple[str, ...] = ()
    hypervisor_error: str | None = None


class Bar(Struct, frozen=True):
    """One guest in one night; a phase is its name, the moment of its start, and that of its end."""

    name: str
    run: DomainRun
    phases: tuple[tuple[str, float, float], ...]
    frozen_at: float | None = None


class Night(Struct, frozen=True):
    """The last backup runs, from their first moment to their last.

    Attributes:
        bars: by their start.
        errors: of runs that ended before they reached any domain.
    """

    start: float
    end: float
    runs: tuple[RunRecord, ...]
    bars: tuple[Bar, ...]
    errors: tuple[str, ...] = ()


class Forecast(Struct, frozen=True):
    """When a target is full, by its growth; dates are seconds since the epoch.

    Attributes:
        per_day_bytes: by how much it grows.
        full: None if it does not grow, or not noticeably.
        earliest: the near end of the band.
        latest: the far end; None if it might never be full.
    """

    per_day_bytes: float
    full: float | None = None
    earliest: float | None = None
    latest: float | None = None


class Capacity(Struct, frozen=True):
    """The space of one target.

    Attributes:
        points: date, used and free bytes; at most one a day, the last is now.
        forecast: None if too little is known yet.
        days_known: how many days the points span.
        expired: how many backups ``clean`` would remove now.
        expired_bytes: what that would free; None if it is not known.
    """

    path: str
    groups: tuple[str, ...]
    error: str | None
    points: tuple[tuple[float, int, int], ...] = ()
    forecast: Forecast | None = None
    days_known: float = 0
    expired: int = 0
    expired_bytes: int | None = None


class Totals(Struct, frozen=True):
    """From the guests' disks to the stored data, in bytes.

    Attributes:
        disk_bytes: the length of the guests' disks, by their newest backups.
        used_bytes: the data in them.
        all_bytes: the data that all backups hold, each counted in full.
        unique_bytes: the same, with the equal data of a repository counted once.
        stored_bytes: the space that it takes, compressed.
        backups: how many.
    """

    disk_bytes: int = 0
    used_bytes: int = 0
    all_bytes: int = 0
    unique_bytes: int = 0
    stored_bytes: int = 0
    backups: int = 0


class Confidence(Struct, frozen=True):
    """How much is proven rather than believed.

    Attributes:
        counts: how many backups are in which state.
        read_back_bytes: stored bytes of the backups that were read back in 30 days.
        stored_bytes: of all complete backups.
        oldest_unverified: the oldest backup that was never read, and its guest.
        audits: disks' audits in the last 30 days that found nothing.
        audit_failures: backups whose audit found a dirty bitmap wrong.
        damaged: backups that are damaged or broken: guest, backup, and the problem.
        read_bytes_per_s: of the last ``verify``.
    """

    counts: tuple[tuple[BackupState, int], ...] = ()
    read_back_bytes: int = 0
    stored_bytes: int = 0
    oldest_unverified: tuple[str, BackupFacts] | None = None
    audits: int = 0
    audit_failures: int = 0
    damaged: tuple[tuple[str, str, str], ...] = ()
    read_bytes_per_s: float | None = None


class Overview(Struct, frozen=True):
    """Everything that a page shows, in the order of the page.

    Attributes:
        guests: the worst first.
        days: those of the heat map, oldest first; each guest has one ``Day`` for each of them.
        runs: of all commands, from the histories of all targets, oldest first.
        problems: those of the overview itself: histories that cannot be read.
        of_target: whether it is of a target alone, without a configuration and libvirt.
    """

    at: float
    host: str
    version: str
    config: str
    verdict: Verdict
    actions: tuple[Action, ...] = ()
    guests: tuple[GuestLine, ...] = ()
    days: tuple[DaySum, ...] = ()
    unprotected: Unprotected = Unprotected()
    night: Night | None = None
    changes: tuple[Change, ...] = ()
    capacity: tuple[Capacity, ...] = ()
    totals: Totals = Totals()
    confidence: Confidence = Confidence()
    calendars: tuple[Calendar, ...] = ()
    leftovers: tuple[Leftover, ...] = ()
    running: tuple[RunningBackup, ...] = ()
    runs: tuple[RunRecord, ...] = ()
    problems: tuple[str, ...] = ()
    of_target: bool = False

"""How the page writes dates, amounts and states; all times are local, all names English."""

from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from datetime import date as Day  # noqa: N812 -- `Words.date` is what the templates call

from virtbackup_async.events import ReportWritten
from virtbackup_async.model.amounts import age, duration, size
from virtbackup_async.reporting.overview import parts
from virtbackup_async.reporting.overview.parts import (
    DayKind,
    DaySum,
    Growth,
    GuestLine,
    Overview,
    Standing,
)

CROSS = "\N{MULTIPLICATION SIGN}"
DASH = "\N{EN DASH}"
GLYPHS = {
    DayKind.VERIFIED: "✓",
    DayKind.MADE: "•",
    DayKind.PARTIAL: "!",
    DayKind.EXPIRED: DASH,
    DayKind.FAILED: CROSS,
    DayKind.DAMAGED: "◆",
    DayKind.NONE: "",
    DayKind.UNKNOWN: "?",
}
KINDS = {
    DayKind.VERIFIED: "verified",
    DayKind.MADE: "made, not verified",
    DayKind.PARTIAL: "made, not quiesced or incomplete",
    DayKind.EXPIRED: "made, removed since",
    DayKind.FAILED: "failed",
    DayKind.DAMAGED: "damaged",
    DayKind.NONE: "no backup",
    DayKind.UNKNOWN: "not known",
}
STANDINGS = {
    Standing.LOST: "bad",
    Standing.BAD: "bad",
    Standing.UNKNOWN: "bad",
    Standing.LOOK: "look",
    Standing.GOOD: "good",
    Standing.RETIRED: "dim",
}
MARKS = {"bad": CROSS, "look": "!", "good": "✓", "dim": DASH}
_SOON_DAYS = 7


class Words:
    """The words of a page that is made at one moment, in one time zone."""

    def __init__(self, at: float, zone: tzinfo | None) -> None:
        self._zone = zone
        self._now = self._local(at)
        self._today = self._now.toordinal()

    @property
    def made_at(self) -> str:
        """``Monday 30 November 2026, 08:00 CET``."""
        zone = self._now.tzname() or f"{self._now:%z}"
        return f"{self._now:%A} {self._now.day} {self._now:%B %Y, %H:%M} {zone}"

    def time(self, moment: float) -> str:
        """``02:15``."""
        return f"{self._local(moment):%H:%M}"

    def date(self, moment: float) -> str:
        """``30 Nov``, with the year if it is another one."""
        return self._date(self._local(moment).date())

    def moment(self, moment: float) -> str:
        """``30 Nov 02:15``."""
        local = self._local(moment)
        return f"{self._date(local.date())} {local:%H:%M}"

    def iso(self, moment: float) -> str:
        """``2026-11-30T02:15:00+01:00``, for programs."""
        return self._local(moment).isoformat(timespec="seconds")

    def day(self, ordinal: int) -> str:
        """``30 Nov``."""
        return self._date(Day.fromordinal(ordinal))

    def weekday(self, ordinal: int) -> str:
        """``today``, ``tomorrow``, ``Tuesday`` within a week, and ``8 Dec`` beyond."""
        away = ordinal - self._today
        near = {-1: "yesterday", 0: "today", 1: "tomorrow"}.get(away)
        if near is not None:
            return near
        if abs(away) < _SOON_DAYS:
            return f"{Day.fromordinal(ordinal):%A}"
        return self.day(ordinal)

    def cell(self, day: parts.Day, ordinal: int) -> str:
        """Return the text that hovering over a cell of the heat map shows."""
        parts = [self._moment_of(day, ordinal), KINDS[day.kind]]
        if day.detail:
            parts.append(day.detail)
        backup, run = day.backup, day.run
        if backup is not None:
            parts.append(f"read {size(backup.read_bytes)}, stored {size(backup.stored_bytes)}")
            if backup.full_reason:
                parts.append(f"read in full: {backup.full_reason}")
            if backup.frozen_ms is not None:
                parts.append(f"frozen {backup.frozen_ms} ms")
            if backup.pinned:
                parts.append("pinned")
        if run is not None:
            parts.append(f"took {duration(run.end - run.start)}")
        if day.backups > 1:
            parts.append(f"{day.backups} backups that day")
        return ", ".join(parts)

    def day_sum(self, day: DaySum) -> str:
        """Return the text that hovering over a cell of the row for all guests shows."""
        counts = (f"{count} {KINDS[kind]}" for kind, count in day.counts)
        return f"{self.day(day.day)}: {', '.join(counts) or 'no guest'}"

    def trend(self, guest: GuestLine, first: int) -> str:
        """Return the text that hovering over a sparkline shows."""
        most = max(guest.added, default=0)
        if not most:
            return "nothing was added in 35 days"
        when = self.day(first + guest.added.index(most))
        return f"added in 35 days: {size(sum(guest.added))}, most on {when}: {size(most)}"

    def growth(self, growth: Growth) -> str:
        """``4.0 times the usual since Tuesday: 800.0 MiB a day, usually 200.0 MiB``."""
        return (
            f"{growth.factor:.1f} times the usual since {self.weekday(growth.since)}: "
            f"{size(growth.recent_bytes)} a day, usually {size(growth.usual_bytes)}"
        )

    def _moment_of(self, day: parts.Day, ordinal: int) -> str:
        if day.backup is not None:
            return self.moment(day.backup.date)
        return self.moment(day.run.end) if day.run is not None else self.day(ordinal)

    def _date(self, day: Day) -> str:
        year = "" if day.year == self._now.year else f" {day.year}"
        return f"{day.day} {day:%b}{year}"

    def _local(self, moment: float) -> datetime:
        return datetime.fromtimestamp(moment, UTC).astimezone(self._zone)


def percent(part: float, whole: float) -> str:
    """``40 %``; a small share is never shown as 0, and nearly everything never as 100."""
    if whole <= 0:
        return "0 %"
    share = 100 * part / whole
    if 0 < share < 1:
        return "under 1 %"
    return f"{min(99, round(share)) if part < whole else 100} %"


def short_age(seconds: float) -> str:
    """``5 hours``; ``under a minute`` for the youngest."""
    return age(seconds) if seconds >= 60 else "under a minute"  # noqa: PLR2004 -- a minute


def counted(number: int, noun: str) -> str:
    """``1 guest``, ``2 guests``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def milliseconds(length_ms: float | None) -> str:
    """``300 ms``, or ``12 s`` from ten seconds on; a dash if there is none."""
    if length_ms is None:
        return DASH
    return f"{length_ms:.0f} ms" if length_ms < 10_000 else duration(length_ms / 1000)  # noqa: PLR2004


def roughly(seconds: float) -> str:
    """``under a minute``, ``50 min`` or ``1.7 h``, for an expected duration."""
    minutes = seconds / 60
    if minutes < 1:
        return "under a minute"
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"  # noqa: PLR2004


def halves(guests: Sequence[GuestLine], fold_from: int) -> tuple[list[GuestLine], list[GuestLine]]:
    """Return the guests to show, and those to fold: the ones in order, if there are many.

    Args:
        guests: the worst first.
        fold_from: from how many on those in order are folded.
    """
    calm = [guest for guest in guests if guest.standing in (Standing.GOOD, Standing.RETIRED)]
    if len(calm) < fold_from:
        return [*guests], []
    return [*guests[: len(guests) - len(calm)]], calm


def written(overview: Overview, file: str, length_bytes: int) -> ReportWritten:
    """Return the event of a page that was written."""
    counted_in = [one for one in overview.guests if one.standing is not Standing.RETIRED]
    restorable = sum(one.standing in (Standing.LOOK, Standing.GOOD) for one in counted_in)
    standing = overview.verdict.standing
    name = "unknown" if standing is Standing.UNKNOWN else STANDINGS[standing]
    return ReportWritten(
        file, overview.verdict.sentence, name, len(counted_in), restorable, length_bytes
    )

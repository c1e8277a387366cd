"""The overview as one event: what ``status`` shows. Pure."""

from collections.abc import Sequence

from virtbackup_async.events import (
    RunningNow,
    StatusGuest,
    StatusShown,
    StatusTarget,
    Timer,
)
from virtbackup_async.reporting.health import CRITICAL, health_of
from virtbackup_async.reporting.overview.parts import Capacity, GuestLine, Overview, Standing
from virtbackup_async.reporting.text import command_line

_GOOD = (Standing.GOOD, Standing.RETIRED)


def status_of(overview: Overview, timers: Sequence[Timer] = ()) -> StatusShown:
    """Return the status."""
    late = [one for one in health_of(overview).found if one.status == CRITICAL]
    standing = overview.verdict.standing
    return StatusShown(
        standing=(Standing.GOOD if standing in _GOOD else standing).name.lower(),
        sentence=overview.verdict.sentence,
        more=overview.verdict.more,
        guests=tuple(map(_guest, overview.guests)),
        late=tuple(late),
        running=tuple(
            RunningNow(
                one.domain,
                one.backup,
                max(0.0, overview.at - one.date),
                one.date,
                one.doing,
                one.pid,
            )
            for one in overview.running
        ),
        targets=tuple(map(_target, overview.capacity)),
        timers=tuple(timers),
        leftovers=tuple(f"{one.domain}: {one.message}" for one in overview.leftovers),
        unusual=tuple(
            f"{one.name}: in backup {one.jump.backup}, {one.jump.reason}"
            for one in overview.guests
            if one.jump is not None
        ),
        undo=next((command_line(one.command) or None for one in overview.leftovers), None),
    )


def _guest(guest: GuestLine) -> StatusGuest:
    return StatusGuest(
        guest.name,
        guest.group,
        guest.domain,
        guest.standing.name.lower(),
        None if guest.state is None else str(guest.state),
        guest.age_s,
        guest.max_age_s,
        "".join(str(day.kind) for day in guest.days),
        guest.uuid,
        guest.host,
    )


def _target(capacity: Capacity) -> StatusTarget:
    last = capacity.points[-1] if capacity.points else None
    forecast = capacity.forecast
    return StatusTarget(
        capacity.path,
        capacity.error,
        free_bytes=last[2] if last else None,
        used_bytes=last[1] if last else None,
        full_unix=forecast.full if forecast else None,
    )

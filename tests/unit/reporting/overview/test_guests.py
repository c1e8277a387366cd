"""Each guest: what is wrong, in which order, on which day."""

from datetime import UTC, timedelta, timezone

import pytest

from fakes.overview_facts import (
    DAY,
    GIB,
    HOUR,
    MIB,
    NIGHT,
    NOW,
    backup,
    domain_run,
    facts,
    guest,
    run,
    target,
)
from virtbackup_async.model.run_record import Outcome
from virtbackup_async.reporting.overview.build import build_overview
from virtbackup_async.reporting.overview.parts import DayKind, Standing


def overview(*guests, history=(), zone=UTC, **different):
    return build_overview(facts(*guests, targets=[target(history=history)], **different), zone)


def line(*guests, **different):
    return overview(*guests, **different).guests[0]


def kinds(*guests, **different):
    return "".join(day.kind for day in line(*guests, **different).days)


@pytest.mark.parametrize(
    ("backups", "reason"),
    [
        ([], "it has no backup"),
        ([backup(3)], "its newest good backup is 3 days old, 26 hours are allowed"),
        ([backup(0, verified=False)], "none of its backups is good: 1 damaged"),
        (
            [backup(1), backup(0, verified=False)],
            "its newest good backup is 30 hours old, 26 hours are allowed",
        ),
        ([backup(0, not_quiesced="no guest agent")], "not quiesced: no guest agent"),
        ([backup(0, lacks=(("vdb", "it is missing"),))], "vdb is not in it: it is missing"),
        (
            [backup(0, audit_failed=True)],
            "an audit found its dirty bitmap wrong, it was read in full",
        ),
        ([backup(1, verified=False), backup(0)], "verify found older backups damaged"),
        ([backup(0), backup(date=NOW + 3 * DAY)], "a backup is dated 3 days in the future"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(backups, reason):
    assert line(guest(backups=backups)).reasons[0] == reason


def test_a_newer_damaged_backup_is_looked_at_while_the_one_before_is_young_enough():
    earlier = backup(date=NIGHT - 12 * HOUR)
    found = line(guest(backups=[earlier, backup(0, verified=False)]))
    assert (found.standing, found.newest) == (Standing.LOOK, earlier)
    assert found.reasons == ("a newer backup is damaged",)


def test_the_last_failure_is_said_until_a_backup_is_made():
    failed = run(0, [domain_run(outcome=Outcome.FAILED, start=NOW - HOUR)])
    found = line(guest(), history=[failed])
    assert found.standing is Standing.LOOK
    assert found.reasons == ("the last backup failed: the image of vda is missing",)
    later = guest(backups=[backup(date=NOW - HOUR // 2)])
    assert line(later, history=[failed]).reasons == ()


def test_the_worst_comes_first():
    found = overview(
        guest("e-good"),
        guest("d-look", [backup(0, not_quiesced="no agent")]),
        guest("b-older", [backup(9)]),
        guest("c-old", [backup(2)]),
        guest("a-lost", [backup(0, verified=False)]),
        guest("f-gone", [backup(90)], is_known=False),
        guest("never", []),
    )
    assert [line.name for line in found.guests] == [
        "a-lost", "never", "b-older", "c-old", "d-look", "e-good", "f-gone",
    ]  # fmt: skip


def test_the_days_end_today_and_say_what_there_is():
    backups = [
        backup(34),
        backup(4, verified=None),
        backup(3, verified=False),
        backup(2, not_quiesced="no agent"),
        backup(1),
    ]
    assert kinds(guest(backups=backups)) == "v" + "n" * 29 + "mdpvn"


def test_a_day_without_a_backup_is_failed_or_expired_by_the_history():
    history = [
        run(2, [domain_run(nights_ago=2)]),
        run(1, [domain_run(nights_ago=1, outcome=Outcome.FAILED)]),
    ]
    found = line(guest(backups=[backup(0)]), history=history)
    assert "".join(day.kind for day in found.days[-3:]) == "efv"
    assert found.days[-2].detail == "the image of vda is missing"


def test_a_backup_after_a_failure_makes_the_day_good():
    failed = run(0, [domain_run(outcome=Outcome.FAILED, start=NIGHT - 600.0)])
    assert kinds(guest(backups=[backup(0)]), history=[failed])[-1] == "v"


def test_a_broken_backup_is_seen_on_its_day():
    found = line(guest(backups=[backup(0)], broken=[("x", NIGHT - DAY, "data missing: x_vda")]))
    assert found.days[-2].kind is DayKind.DAMAGED
    assert found.days[-2].detail == "data missing: x_vda"


def test_a_day_is_one_of_the_local_calendar():
    late = backup(date=NIGHT - 3 * HOUR)  # 23:00 in UTC, 04:00 the next day in Nepal
    assert kinds(guest(backups=[late]))[-2:] == "vn"
    nepal = timezone(timedelta(hours=5, minutes=45))
    assert kinds(guest(backups=[late]), zone=nepal)[-2:] == "nv"


def test_of_an_unreadable_target_no_day_is_known():
    away = build_overview(facts(guest(backups=[]), targets=[target(error="gone")]), UTC)
    assert {day.kind for day in away.guests[0].days} == {DayKind.UNKNOWN}
    assert away.days[-1].worst is DayKind.UNKNOWN


def test_the_days_are_summed_up_with_the_worst_first():
    found = overview(guest("a"), guest("b", [backup(0, verified=False)]), guest("c"))
    assert found.days[-1].counts == ((DayKind.DAMAGED, 1), (DayKind.VERIFIED, 2))
    assert found.days[-1].worst is DayKind.DAMAGED
    assert [day.day for day in found.days][-1] - found.days[0].day == 34


def test_the_newest_verified_backup_may_be_older_than_the_newest():
    found = line(guest(backups=[backup(2), backup(1, verified=None), backup(0, verified=None)]))
    assert found.newest_verified.date == backup(2).date
    assert found.newest.date == backup(0).date


def test_a_restore_takes_as_long_as_the_last_verify_read():
    verified = domain_run(outcome=Outcome.VERIFIED, start=NOW - 1000.0, end=NOW - 900.0)
    history = [run(0, [verified], command="verify", start=NOW - 1000.0, end=NOW - 900.0)]
    # 20 GiB in 100 s, and the newest backup holds 20 GiB.
    assert line(guest(), history=history).restore_s == pytest.approx(100)
    assert line(guest()).restore_s is None


def added(amounts):
    """A guest that stored so much each night, the last one being the last."""
    nights = reversed(range(len(amounts)))
    pairs = zip(nights, amounts, strict=True)
    return guest(backups=[backup(night, stored_bytes=amount) for night, amount in pairs])


def test_growth_is_held_against_the_thirty_days_before():
    found = line(added([9 * GIB, *[200 * MIB] * 20, *[800 * MIB] * 4])).growth
    assert found.factor == pytest.approx(4)
    assert found.since == overview(guest()).days[-4].day
    assert (found.recent_bytes, found.usual_bytes) == (800 * MIB, 200 * MIB)


@pytest.mark.parametrize(
    "amounts",
    [
        [200 * MIB] * 30,
        [9 * GIB, 800 * MIB],
        [1 * MIB] * 20 + [4 * MIB] * 4,
        [200 * MIB] * 20 + [800 * MIB] * 4 + [200 * MIB],
    ],
    ids=["even", "new", "small", "over"],
)
def test_what_is_usual_new_small_or_over_is_no_growth(amounts):
    assert line(added(amounts)).growth is None


def test_backups_that_are_gone_count_as_added():
    history = [run(3, [domain_run(nights_ago=3, stored_bytes=7)])]
    found = line(guest(backups=[backup(0, stored_bytes=5)]), history=history)
    assert found.added[-4:] == (7, 0, 0, 5)

"""Last night, capacity, totals, confidence, what to do: each from facts that may be odd."""

import math
from datetime import UTC

import pytest

from command_lines import parse
from fakes.overview_facts import (
    DAY,
    GIB,
    GROUP,
    HOUR,
    NIGHT,
    NOW,
    TARGET,
    backup,
    domain_run,
    facts,
    guest,
    run,
    target,
)
from virtbackup_async.model.facts import Leftover, RepositoryFacts
from virtbackup_async.model.run_record import Outcome
from virtbackup_async.reporting.overview.build import build_overview
from virtbackup_async.reporting.overview.capacity import forecast
from virtbackup_async.reporting.overview.parts import BackupState, Standing

CONFIG = "/etc/virt-backup/config.yml"


def overview(*guests, **different):
    return build_overview(facts(*guests, **different), UTC)


def with_history(*history, **different):
    return overview(guest(), targets=[target(history=history)], **different)


def test_the_last_night_is_a_bar_a_guest_by_begin():
    db, web = domain_run("db", start=NIGHT + 200.0), domain_run("web")
    night = with_history(run(1, [domain_run(nights_ago=1)]), run(0, [db, web])).night
    assert [bar.name for bar in night.bars] == ["web", "db"]
    assert (night.start, night.end) == (NIGHT, NIGHT + 1200)
    first = night.bars[0]
    assert first.frozen_at == NIGHT + 14
    assert first.phases[-1] == ("finishing", NIGHT + 120, NIGHT + 130)
    assert [name for name, _, _ in first.phases][:2] == ["preparing", "freezing"]


def test_a_night_may_be_of_two_runs_and_a_run_of_two_targets():
    one = run(0, [domain_run("web")], run_id="one")
    elsewhere = run(0, [domain_run("db", group="offsite")], run_id="one", exit_code=3)
    late = run(0, [domain_run("mail", start=NIGHT + 3 * HOUR)], start=NIGHT + 3 * HOUR)
    targets = [target(history=[one, late]), target("/mnt/other", [elsewhere], groups=("offsite",))]
    found = overview(guest(), targets=targets)
    assert [bar.name for bar in found.night.bars] == ["db", "web", "mail"]
    assert [record.exit_code for record in found.runs] == [3, 0]


def test_a_run_that_came_to_no_domain_is_said():
    failed = run(0, exit_code=20, error="libvirt does not answer")
    assert with_history(failed).night.errors == ("libvirt does not answer",)


@pytest.mark.parametrize(
    "history",
    [
        [],
        [run(3, [domain_run(nights_ago=3)])],
        [run(0, command="clean")],
        [run(0, [domain_run()], end=NOW + 2 * DAY)],
        [run(0, [domain_run()], end=NIGHT - 5.0)],
    ],
    ids=["none", "old", "another command", "in the future", "ends before it begins"],
)
def test_there_is_no_night_where_none_is_known(history):
    assert with_history(*history).night is None


def test_a_bar_does_not_leave_the_night():
    odd = [
        domain_run("before", start=NIGHT - 3600.0),
        domain_run("after", end=NOW + DAY),
        domain_run("backwards", end=NIGHT + 1.0),
        domain_run("good", phases=(("copying", 50.0), ("preparing", -1.0), ("x", 9e9))),
    ]
    night = with_history(run(0, odd)).night
    assert [bar.name for bar in night.bars] == ["good"]
    assert night.bars[0].phases == (("copying", NIGHT + 60, NIGHT + 130),)


def test_a_domain_that_was_never_begun_has_a_bar_without_phases():
    failed = domain_run("gone", outcome=Outcome.FAILED, phases=(), end=NIGHT + 10.0)
    assert with_history(run(0, [failed])).night.bars[0].phases == ()


def grown(days, per_day=GIB, noise=0.0):
    return [
        (
            NOW - (days - day) * DAY,
            int(100 * GIB + day * per_day + noise * math.sin(7 * day)),
            int(300 * GIB - day * per_day - noise * math.sin(7 * day)),
        )
        for day in range(days + 1)
    ]


def test_a_straight_line_is_continued():
    found = forecast(grown(20))
    assert found.per_day_bytes == pytest.approx(GIB)
    assert found.full == pytest.approx(NOW + 280 * DAY)
    assert found.earliest == pytest.approx(found.full)
    assert found.latest == pytest.approx(found.full)


def test_noise_makes_a_band_around_the_line():
    found = forecast(grown(20, noise=3 * GIB))
    assert found.earliest < found.full < found.latest
    assert found.earliest < NOW + 280 * DAY < found.latest


def test_too_little_is_no_forecast_and_no_growth_is_never_full():
    assert forecast([]) is None
    assert forecast(grown(3)) is None
    assert forecast([grown(20)[0]] * 9) is None, "all of one moment"
    still = forecast(grown(20, per_day=0))
    assert (still.full, still.earliest, still.latest) == (None, None, None)
    assert forecast(grown(20, per_day=-GIB)).full is None


def test_a_larger_disk_begins_anew():
    points = [
        *grown(20)[:11],
        *((date, used, free + 500 * GIB) for date, used, free in grown(20)[11:]),
    ]
    found = forecast(points)
    assert found.full == pytest.approx(NOW + 780 * DAY)


def test_the_points_are_one_a_day_and_end_now():
    history = [run(night) for night in range(120, 0, -1)]
    history.insert(0, run(5, used_bytes=None, start=NIGHT - 5.5 * DAY))
    (found,) = with_history(*history).capacity
    assert len(found.points) == 90
    assert found.points[-1] == (NOW, 400 * GIB, 600 * GIB)
    assert found.forecast.per_day_bytes == pytest.approx(GIB, rel=0.05)


def test_an_unreadable_target_has_an_error_and_nothing_else():
    (found,) = overview(guest(), targets=[target(error="not mounted")]).capacity
    assert (found.error, found.points, found.forecast) == ("not mounted", (), None)


def test_the_totals_go_from_disks_to_what_is_stored():
    loose = guest("db", [backup(0, "db")], target="/mnt/other")
    targets = [target(), target("/mnt/other", groups=("other",), repository=None)]
    found = overview(guest(), loose, targets=targets).totals
    assert (found.disk_bytes, found.used_bytes) == (80 * GIB, 40 * GIB)
    assert (found.all_bytes, found.backups) == (41 * 20 * GIB, 41)
    assert found.unique_bytes == 520 * GIB, "the repository's chunks, and what is elsewhere"
    assert found.stored_bytes == 300 * GIB + backup().stored_bytes


def test_two_repositories_are_added_up():
    other = target("/mnt/other", groups=("b",), repository=RepositoryFacts(GIB, GIB, GIB))
    found = overview(guest(), targets=[target(), other]).totals
    assert found.stored_bytes == 301 * GIB


def test_confidence_is_what_was_read_back():
    found = overview(
        guest("web", [backup(40), backup(1), backup(0, verified=None)]),
        guest("db", [backup(9, "db", verified=None), backup(0, "db", verified=False)],
              broken=[("x", None, "not JSON")]),
    ).confidence  # fmt: skip
    assert dict(found.counts) == {
        BackupState.GOOD: 2, BackupState.UNVERIFIED: 2, BackupState.DAMAGED: 1,
        BackupState.BROKEN: 1,
    }  # fmt: skip
    assert found.read_back_bytes * 5 == found.stored_bytes, "one of five in the last 30 days"
    assert (found.oldest_unverified[0], found.oldest_unverified[1].name) == (
        "db",
        backup(9, "db").name,
    )
    assert found.damaged == (
        ("db", "x", "not JSON"),
        ("db", backup(0, "db").name, "verify found it damaged"),
    )


def test_audits_of_the_last_month_are_counted():
    backups = [
        backup(40, audited_bytes=9, audit_failed=True),
        backup(2, audited_bytes=9),
        backup(1, audited_bytes=9, audit_failed=True),
        backup(0),
    ]
    found = overview(guest(backups=backups)).confidence
    assert (found.audits, found.audit_failures) == (1, 1)


def test_nothing_is_to_be_done_where_all_is_well():
    assert overview(guest()).actions == ()


def test_each_thing_to_do_has_the_command_that_does_it():
    found = overview(
        guest("db", []),
        guest("web", [backup(50, verified=None), backup(0, expires=True)],
              broken=[("x", None, "not JSON")]),
        program=("virtbackup", "-c", "/etc/a b.yml"),
        unclaimed=("lab",),
        leftovers=(Leftover("web", "was killed", ("virtbackup", "clean", "-b")),),
    )  # fmt: skip
    assert [(one.standing, one.text, one.command[-3:]) for one in found.actions] == [
        (Standing.BAD, "Undo what killed backups left of web.", ("virtbackup", "clean", "-b")),
        (Standing.BAD, "Back up db.", ("/etc/a b.yml", "backup", "db")),
        (Standing.LOOK, f"Put lab into a group of {CONFIG}, or leave it out.", ()),
        (Standing.LOOK, "Look into the damaged backups of web.",
         ("/etc/a b.yml", "list", "web")),
        (Standing.GOOD, f"Remove the expired backup in {TARGET}.",
         ("-c", "/etc/a b.yml", "clean")),
        (Standing.GOOD, "Read back backups that were never verified.",
         ("verify", "--not-verified-since", "30d")),
    ]  # fmt: skip
    for one in found.actions:
        if one.command:
            parse([*one.command[1:]])


def test_what_to_do_begins_with_the_target_that_is_away():
    found = overview(guest(), targets=[target(error="not mounted")], hypervisor_error="refused")
    assert [one.text for one in found.actions] == [
        f"See that the target of {GROUP} is mounted: not mounted.",
        "See why libvirt does not answer.",
    ]


def test_a_missing_recovery_key_has_the_command_that_makes_one():
    lacking = target(recovery_lack="no recovery key")
    (action,) = overview(guest(), targets=[lacking]).actions
    assert action.text == f"Print a recovery key of {TARGET}: no recovery key."
    assert (action.standing, action.command) == (
        Standing.BAD,
        ("virtbackup", "key", "paper", GROUP),
    )
    parse([*action.command[1:]])
    alone = {"of_target": True, "where": ("--target", TARGET)}
    (action,) = overview(guest(), targets=[lacking], **alone).actions
    assert action.command == ("virtbackup", "key", "paper", "--target", TARGET)


def test_a_disk_that_is_full_soon_is_to_be_looked_after():
    nearly = [
        run(night, used_bytes=(900 - 5 * night) * GIB, free_bytes=(100 + 5 * night) * GIB)
        for night in range(20, 0, -1)
    ]
    full = target(history=nearly, used_bytes=905 * GIB, free_bytes=95 * GIB)
    (action,) = overview(guest(), targets=[full]).actions
    assert action.text == f"Make room in {TARGET}: it is full in about 19 days."
    assert action.standing is Standing.BAD


def test_what_is_not_protected_is_listed():
    lacking = guest("db", [backup(0, "db", lacks=(("vdb", "its image is missing"),))])
    found = overview(
        guest(), lacking, unclaimed=("lab",), groups=((GROUP, True), ("manual", False)),
        targets=[target(unclaimed=("renamed",))],
    ).unprotected  # fmt: skip
    assert found.domains == ("lab",)
    assert [(one.guest, one.disk, one.reason) for one in found.disks] == [
        ("db", "vdb", "its image is missing")
    ]
    assert (found.groups, found.unclaimed) == (("manual",), ("renamed",))


def test_a_history_that_cannot_be_read_is_a_problem_of_the_overview():
    found = overview(guest(), targets=[target(problems=("3 lines are damaged",))])
    assert found.problems == (f"{TARGET}: 3 lines are damaged",)
    assert found.verdict.standing is Standing.GOOD


def test_failed_runs_of_a_guest_are_no_success():
    failed = run(0, [domain_run(outcome=Outcome.FAILED)], exit_code=3)
    night = with_history(failed).night
    assert night.bars[0].run.error == "the image of vda is missing"


def commands(*guests, **different):
    return [one.command for one in overview(*guests, **different).actions]


def test_guests_to_back_up_are_named_so_that_they_are_meant():
    assert commands(guest("a", []), guest("b", [])) == [("virtbackup", "backup", "a", "b")]
    many = (guest(name, []) for name in "abcdef")
    assert commands(*many) == [("virtbackup", "backup", GROUP)]
    assert commands(guest(GROUP, [])) == [("virtbackup", "backup", f"{GROUP}/{GROUP}")]
    twice = guest("a", []), guest("a", group="offsite")
    assert commands(*twice) == [("virtbackup", "backup", f"{GROUP}/a")]
    assert commands(guest("-a", [])) == [("virtbackup", "backup", "--", "-a")]

"""The first sentence: never better than what is known."""

from datetime import UTC

import pytest

from fakes.overview_facts import GROUP, HOUR, NOW, backup, domain_run, facts, guest, run, target
from virtbackup_async.model.run_record import Outcome
from virtbackup_async.reporting.overview.build import build_overview
from virtbackup_async.reporting.overview.parts import BackupState, Standing
from virtbackup_async.reporting.overview.verdict import listed


def verdict(*guests, **different):
    return build_overview(facts(*guests, **different), UTC).verdict


def test_all_is_well():
    found = verdict(*(guest(f"vm{number}") for number in range(42)))
    assert found.standing is Standing.GOOD
    assert found.sentence == "All 42 guests can be restored to last night."
    assert found.more == ()


def test_one_guest_is_named():
    assert verdict(guest()).sentence == "The only guest, web, can be restored to last night."


@pytest.mark.parametrize(
    "backups",
    [
        [],
        [backup(2)],
        [backup(0, verified=False)],
        [backup(2), backup(0, verified=False)],
        [backup(date=NOW + HOUR)],
    ],
)
def test_a_guest_that_cannot_be_restored_to_last_night_is_named(backups):
    found = verdict(guest("db-1", backups), guest("mail"), guest("web"))
    assert found.standing in (Standing.LOST, Standing.BAD)
    assert found.sentence == "1 of 3 guests cannot be restored to last night: db-1."


def test_of_which_guests_nothing_can_be_restored_is_said_in_addition():
    none, old = guest("db-1", [backup(0, verified=False)]), guest("mail", [backup(3)])
    found = verdict(none, old, guest())
    assert found.standing is Standing.LOST
    assert found.sentence.endswith(": db-1 and mail.")
    assert found.more == ("Of db-1 there is no good backup at all.",)


def test_a_broken_backup_is_none():
    found = verdict(guest(backups=[], broken=[("20261130-020000_3_web", NOW, "data missing")]))
    assert found.standing is Standing.LOST
    assert found.sentence == "The only guest cannot be restored to last night: web."


def test_a_week_is_not_last_night():
    weekly = guest("web", [backup(5)], max_age_s=8 * 24 * HOUR)
    found = verdict(weekly, guest("db"))
    assert found.sentence == "All 2 guests can be restored to the age that their groups allow."


def test_the_age_that_is_allowed_is_to_the_second():
    assert verdict(guest(backups=[backup(date=NOW - 26 * HOUR)])).standing is Standing.GOOD
    assert verdict(guest(backups=[backup(date=NOW - 26 * HOUR - 1)])).standing is Standing.BAD


def test_a_target_that_cannot_be_read_comes_first():
    away = target(error="/mnt/backups: not mounted?")
    found = verdict(guest("web", []), guest("db", []), targets=[away])
    assert found.standing is Standing.UNKNOWN
    assert found.sentence == (
        "The target /mnt/backups cannot be read: whether 2 guests can be restored is not known."
    )
    assert not any("All" in line for line in found.more)


def of_target(*guests, **different):
    known = [
        type(one)(
            **{name: getattr(one, name) for name in one.__struct_fields__}
            | {"max_age_s": None, "is_known": None}
        )
        for one in guests
    ]
    return verdict(*known, of_target=True, config="/t", **different)


@pytest.mark.parametrize(
    ("guests", "standing", "sentence"),
    [
        ([], Standing.BAD, "There is no backup in /t."),
        (
            [guest("web", [backup(90)])],
            Standing.GOOD,
            "The only guest in /t, web, can be restored; its newest good backup is 90 days old.",
        ),
        (
            [guest("web", [backup(90)]), guest("db")],
            Standing.GOOD,
            (
                "All 2 guests in /t can be restored; the oldest of their newest good backups is 90 "
                "days old."
            ),
        ),
        (
            [guest("web", [backup(0, verified=False)]), guest("db")],
            Standing.LOST,
            "1 of 2 guests in /t cannot be restored: web.",
        ),
        (
            [guest("web", [], broken=[("x", None, "not readable")])],
            Standing.LOST,
            "The only guest in /t cannot be restored: web.",
        ),
    ],
)
def test_a_target_alone_promises_no_age(guests, standing, sentence):
    found = of_target(*guests)
    assert (found.standing, found.sentence) == (standing, sentence)
    assert found.more[0].startswith("Without a configuration and libvirt it is not known")
    assert not any("libvirt did not answer" in line for line in found.more)


def test_a_target_alone_that_cannot_be_read():
    found = of_target(targets=[target("/t", error="no such directory")])
    assert found.sentence == (
        "The target /t cannot be read: whether its guests can be restored is not known."
    )


def test_beside_an_unreadable_target_the_others_are_judged():
    away = target("/mnt/away", error="gone", groups=("archive",))
    found = verdict(
        guest("old", [], group="archive", target="/mnt/away"),
        guest("web"),
        guest("db", []),
        targets=[away, target()],
        groups=(("archive", True), (GROUP, True)),
    )
    assert "/mnt/away cannot be read: whether 1 guest can" in found.sentence
    assert found.more[0] == "1 of 2 guests cannot be restored to last night: db."


@pytest.mark.parametrize(
    ("different", "reason"),
    [
        ({"groups": (), "targets": []}, "the configuration has no groups"),
        ({"targets": []}, "no group has a target"),
        ({}, "no group matches a guest"),
    ],
)
def test_nothing_is_never_all(different, reason):
    found = verdict(**different)
    assert found.standing is Standing.BAD
    assert found.sentence == f"Nothing is backed up: {reason}."


def test_what_no_group_means_and_what_is_not_known_qualify_it():
    assert verdict(guest(), unclaimed=("lab", "test")).more == (
        "2 guests are in no group, and not backed up.",
    )
    (line,) = verdict(guest(), hypervisor_error="connection refused").more
    assert line == (
        "libvirt did not answer: guests that no group means are not known (connection refused)."
    )


def test_unverified_backups_are_said_to_be_so():
    unread = guest("db", [backup(0, verified=None)])
    found = verdict(guest(), unread)
    assert found.standing is Standing.GOOD
    assert found.more == ("1 of the 2 newest backups are not verified yet.",)


def test_a_domain_that_is_gone_spoils_nothing_and_is_not_counted():
    gone = guest("old", [backup(400)], is_known=False)
    overview = build_overview(facts(gone, guest()), UTC)
    assert overview.verdict.sentence.startswith("The only guest, web,")
    assert [line.standing for line in overview.guests] == [Standing.GOOD, Standing.RETIRED]


def test_a_domain_that_is_gone_and_still_tried_is_looked_at():
    failed = run(0, [domain_run("old", outcome=Outcome.FAILED)])
    gone = guest("old", [backup(400)], is_known=False)
    (line,) = build_overview(facts(gone, targets=[target(history=[failed])]), UTC).guests
    assert line.standing is Standing.LOOK


def test_a_guest_is_named_with_its_group_where_it_is_in_two():
    twice = guest("db", [], group="offsite"), guest("db")
    overview = build_overview(facts(*twice), UTC)
    assert [line.name for line in overview.guests] == ["db (offsite)", "db (production)"]
    assert overview.verdict.sentence.endswith(": db (offsite).")


@pytest.mark.parametrize(
    ("backups", "broken", "state"),
    [
        ([backup(0)], (), BackupState.GOOD),
        ([backup(0, verified=None)], (), BackupState.UNVERIFIED),
        ([backup(1), backup(0, verified=False)], (), BackupState.GOOD),
        ([backup(0, verified=False)], (), BackupState.DAMAGED),
        ([], [("x", None, "not readable")], BackupState.BROKEN),
        ([], (), None),
    ],
)
def test_the_state_of_a_guest_is_that_of_its_newest_good_backup(backups, broken, state):
    (line,) = build_overview(facts(guest(backups=backups, broken=broken)), UTC).guests
    assert line.state is state


def test_a_list_of_names_is_cut():
    assert listed([]) == ""
    assert listed(["a"]) == "a"
    assert listed(["a", "b"]) == "a and b"
    assert listed([*"abcdefgh"]) == "a, b, c, d, e and 3 more"

"""reporting/health.py: the line for a monitoring, and its exit code."""

import re
from datetime import UTC

import pytest

from fakes.overview_facts import DAY, HOUR, NIGHT, NOW, backup, facts, guest, target
from virtbackup_async.reporting.health import health_of, unknown
from virtbackup_async.reporting.outcome import RunOutcome
from virtbackup_async.reporting.overview.build import build_overview

LINE = re.compile(
    r"VIRTBACKUP (OK|WARNING|CRITICAL|UNKNOWN) - [^|\n]+ \| "
    r"oldest=(U|\d+s);;\d*;0; guests=\d+;;;0; bad=\d+;;0;0;\d+"
)


def health(*guests, words=(), max_age_s=None, **different):
    return health_of(build_overview(facts(*guests, **different), UTC), words, max_age_s)


def test_each_guest_with_a_young_good_backup_is_ok():
    checked = health(guest("web"), guest("db"))
    assert (checked.status, checked.exit_code, checked.guests) == ("ok", 0, 2)
    assert checked.oldest_s == NOW - NIGHT
    assert "2 guests can be restored" in checked.message
    assert checked.found == ()


@pytest.mark.parametrize(
    ("backups", "reason"),
    [
        ([backup(2)], "2 days old"),
        ([], "no backup"),
        ([backup(0, verified=False)], "none of its backups is good"),
        ([backup(3), backup(0, verified=False)], "3 days old"),
    ],
)
def test_a_guest_without_a_young_good_backup_is_critical(backups, reason):
    checked = health(guest("web"), guest("db", backups))
    assert (checked.status, checked.exit_code) == ("critical", 2)
    (found,) = checked.found
    assert found.domain == "db"
    assert reason in found.reason
    assert "1 of 2 guests has no good backup" in checked.message
    assert "bad=1;" in checked.message


def test_several_guests_have_and_an_only_one_has():
    assert "- 2 of 3 guests have no" in health(guest("a"), guest("b", []), guest("c", [])).message
    assert "- the only guest has no good backup" in health(guest("a", [])).message


def test_the_given_age_counts_and_not_that_of_the_group():
    old = guest("web", [backup(2)])
    assert health(old).status == "critical"
    assert health(old, max_age_s=3 * DAY).exit_code in {0, 1}
    assert health(guest("web"), max_age_s=HOUR).status == "critical"
    assert ";;3600;0;" in health(guest("web"), max_age_s=HOUR).message


def test_another_flaw_is_a_warning():
    checked = health(guest("web", [backup(0, quiesced=False, not_quiesced="no agent")]))
    assert (checked.status, checked.exit_code) == ("warning", 1)


def test_a_target_that_cannot_be_read_is_unknown_and_critical_goes_before_it():
    unreadable = {"targets": [target(error="cannot read it")]}
    assert health(guest("web"), **unreadable).exit_code == 3
    other = guest("db", [], target="/other")
    assert health(guest("web"), other, **unreadable).exit_code == 2


def test_nothing_to_look_at_is_unknown():
    assert health().exit_code == 3
    assert health(guest("web"), words=("nope",)).exit_code == 3


def test_a_domain_that_libvirt_has_no_more_is_left_out():
    checked = health(guest("web"), guest("old", [backup(40)], is_known=False))
    assert (checked.status, checked.guests) == ("ok", 1)


def test_words_choose_groups_and_domains():
    guests = guest("web"), guest("db", [], group="lab")
    assert health(*guests, words=("web",)).status == "ok"
    assert health(*guests, words=("lab",)).status == "critical"


def test_many_bad_guests_are_one_line():
    checked = health(*(guest(f"g{number}", []) for number in range(30)))
    assert "and 25 more" in checked.message
    assert len(checked.found) == 30


@pytest.mark.parametrize("name", ["web", "a|b", "a\nb", "\x1b[2J", "x" * 200, "domäne"])
def test_the_line_is_one_line_whatever_a_guest_is_called(name):
    for checked in (health(guest(name)), health(guest(name, []))):
        assert LINE.fullmatch(checked.message), checked.message


def test_what_cannot_be_found_out_is_unknown():
    checked = unknown("a | b\nc")
    assert checked.exit_code == 3
    assert checked.message == "VIRTBACKUP UNKNOWN - a / b\\nc"


@pytest.mark.parametrize("max_age_s", [None, HOUR])
def test_the_exit_code_of_the_run_is_that_of_the_check(max_age_s):
    outcome = RunOutcome(lambda _event: None)
    outcome.emit(health(guest("web"), max_age_s=max_age_s))
    summary = outcome.summary([], None)
    assert (summary.exit_code, summary.error) == (0 if max_age_s is None else 2, None)
    assert summary.ok == (max_age_s is None)

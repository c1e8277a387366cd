"""The page as a mail: its subject, its text, and when it is due."""

from datetime import UTC

import pytest

from fakes.overview_facts import DAY, HOUR, NOW, backup, facts, guest, run, target
from fakes.overview_site import site_facts
from virtbackup_async.reporting.overview.build import build_overview
from virtbackup_async.reporting.page.mail import is_due, subject, text


def overview(*guests, **different):
    return build_overview(facts(*guests, **different), UTC)


@pytest.mark.parametrize(
    ("how_often", "ago_s", "due"),
    [
        ("never", None, False),
        ("weekly", None, True),
        ("weekly", 6 * DAY, False),
        ("weekly", 7 * DAY - HOUR, True),
        ("weekly", 30 * DAY, True),
        ("weekly", -DAY, True),
        ("daily", 12 * HOUR, False),
        ("daily", 23 * HOUR, True),
    ],
)
def test_when_a_mail_is_due(how_often, ago_s, due):
    assert is_due(how_often, None if ago_s is None else NOW - ago_s, NOW) is due


def test_the_subject_says_all_that_matters():
    bad = [guest("db-1", []), guest("mail", [backup(4)])]
    assert subject(overview(*(guest(f"vm{n}") for n in range(9)))) == "[virtbackup] host1: 9 ok"
    assert subject(overview(guest(), *bad)) == "[virtbackup] host1: 1 ok, 2 FAILED (db-1 and mail)"
    assert subject(overview()) == (
        "[virtbackup] host1: Nothing is backed up: no group matches a guest."
    )
    away = overview(targets=[target(error="gone")])
    assert subject(away).startswith("[virtbackup] host1: The target /mnt/backups cannot be read")


def test_the_subject_is_one_line():
    assert "\n" not in subject(overview(guest("a\r\nBcc: x@example.org", [])))


def test_the_text_has_what_has_to_be_known():
    lines = text(build_overview(site_facts(), UTC), UTC).splitlines()
    assert lines[0] == "2 of 23 guests cannot be restored to last night: ns2 and db-1."
    assert "To do now:" in lines
    assert "    virtbackup backup ns2 db-1" in lines
    assert "vvmvvvvvvvvfff  db-1" in lines
    assert any(
        line.startswith("- /mnt/backups: 713.0 GiB of 1000.0 GiB used; full") for line in lines
    )
    assert lines[-1].startswith("Monday 30 November 2026, 08:00 UTC, virtbackup 1.3.0, /etc/")


def test_the_text_of_a_good_day_is_short():
    history = [run(night) for night in range(2, 0, -1)]
    assert text(overview(guest(), targets=[target(history=history)]), UTC).splitlines() == [
        "The only guest, web, can be restored to last night.",
        "",
        "There is nothing to do.",
        "",
        "Space:",
        "- /mnt/backups: 400.0 GiB of 1000.0 GiB used; 2 days of history, no forecast yet",
        "",
        "Monday 30 November 2026, 08:00 UTC, virtbackup 1.3.0, /etc/virt-backup/config.yml",
    ]


def test_a_target_that_is_away_is_said():
    away = overview(guest("web", []), targets=[target(error="not mounted")])
    assert "- /mnt/backups: cannot be read: not mounted" in text(away, UTC)

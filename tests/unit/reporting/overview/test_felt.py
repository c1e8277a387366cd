"""What the guests felt of their backups: from backups and histories that may say anything."""

from datetime import UTC

import pytest

from fakes.overview_facts import DAY, NIGHT, backup, domain_run, facts, guest, run, target
from virtbackup_async.model.run_record import Outcome
from virtbackup_async.reporting.overview.build import build_overview

PHASES = (("preparing", 0.0), ("freezing", 5.0), ("copying", 6.0), ("finishing", 105.0))


def felt(backups, runs=()):
    history = [run(nights, [one]) for nights, one in enumerate(runs)]
    overview = build_overview(facts(guest("web", backups), targets=[target(history=history)]), UTC)
    return overview.guests[0].felt


def nightly(*runs, method="snapshot", phases=PHASES, **different):
    return [
        domain_run("web", night, frozen_ms=ms, method=method, phases=phases, **different)
        for night, ms in enumerate(runs)
    ]


def test_the_last_backup_the_usual_one_and_the_longest():
    found = felt([backup(n, frozen_ms=ms) for n, ms in ((6, 90), (5, 800), (4, 100), (3, 100),
                 (2, 110), (1, 120), (0, 150))])  # fmt: skip
    assert (found.frozen_ms, found.usual_ms, found.longest_ms) == (150, 105, 800)
    assert (found.date, found.longest_date) == (NIGHT, NIGHT - 5 * DAY)
    assert (found.overlay_s, found.usual_s, found.is_raised) == (None, None, False)


def test_a_guest_is_on_overlays_from_its_snapshot_until_all_are_committed():
    found = felt([], nightly(*[100] * 6))
    assert (found.overlay_s, found.usual_s) == (100.0, 100.0)
    unfinished = felt([], nightly(100, phases=PHASES[:3]))
    assert unfinished.overlay_s == 115.0


@pytest.mark.parametrize("method", ["pull", "copy", None, "new"])
def test_only_a_snapshot_has_overlays(method):
    assert felt([], nightly(100, method=method)).overlay_s is None


@pytest.mark.parametrize(
    "phases",
    [(), (("finishing", 3.0),), (("freezing", 1e9),), (("copying", 90.0), ("finishing", 1.0))],
)
def test_phases_that_are_odd_are_no_error(phases):
    assert felt([], nightly(100, phases=phases)).overlay_s in {None, 0.0}


@pytest.mark.parametrize(
    ("frozen_ms", "is_raised"),
    [(300, False), (590, False), (600, True), (9000, True), (None, False)],
)
def test_much_longer_than_usual_is_three_times_and_half_a_second(frozen_ms, is_raised):
    assert felt([], nightly(frozen_ms, *[100] * 5)).is_raised is is_raised


def test_minutes_on_overlays_are_raised_too():
    long = nightly(100, end=NIGHT + 3000.0, phases=PHASES[:3])
    assert felt([], [*long, *nightly(100, 100, 100, 100, 100, 100)[1:]]).is_raised


def test_the_usual_needs_five():
    assert felt([], nightly(9000, 1, 1, 1, 1)).usual_ms is None
    assert felt([], nightly(9000, 1, 1, 1, 1, 1)).usual_ms == 1


def test_what_is_not_known_is_none():
    assert felt([]) is None
    assert felt([backup(0, frozen_ms=None)]) is None
    assert felt([backup(60)]) is None
    assert felt([], nightly(None, method="copy")) is None
    failed = nightly(100, outcome=Outcome.FAILED)
    assert felt([], failed) is None


def test_a_backup_in_the_history_counts_once():
    one = domain_run("web", 0, frozen_ms=100)
    found = felt([backup(0, frozen_ms=900), backup(0, frozen_ms=900)], [one])
    assert found.longest_ms == 100

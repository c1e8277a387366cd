"""Medians, ratios round by round, and what a guest's log of its turns says."""

import pytest
from benchmarks import guest_io
from benchmarks.results import GuestIo, Sample, Series, ratio


def runs(contender, *walls, stored=None):
    return Series(contender, [Sample(wall, 1.0, 1, stored) for wall in walls])


def test_ratio_is_taken_round_by_round():
    # A noisy second round hits both; the ratio of the medians would be 3.
    ours, theirs = runs("a", 2, 30, 3), runs("b", 1, 15, 1.5)

    assert ratio(ours, theirs, "wall_s") == 2


def test_median_ratio_ignores_one_bad_round():
    assert ratio(runs("a", 1, 9, 1), runs("b", 2, 2, 2), "wall_s") == 0.5


def test_fixed_cost_is_taken_off_ours_only():
    assert ratio(runs("a", 2.5), runs("b", 1), "wall_s", fixed=0.5) == 2


@pytest.mark.parametrize("peer", [runs("b"), runs("b", 0)])
def test_no_ratio_without_a_peers_figure(peer):
    assert ratio(runs("a", 1), peer, "wall_s") is None


def test_figure_that_one_run_lacks_is_none():
    mixed = Series("a", [Sample(1, 1, 1, 5), Sample(1, 1, 1, None)])

    assert mixed.median("stored_bytes") is None
    assert mixed.highest("stored_bytes") is None
    assert mixed.median("wall_s") == 1


def test_highest_is_the_worst_run():
    assert runs("a", 1, 3, 2).highest("wall_s") == 3


def test_turns_of_the_guest_are_told_apart_by_its_clock():
    turns = [1, 2, 3, 4, 10.5, 11.5, 15, 16]

    felt = guest_io.judge(turns, "ours", 0.0, 5.0, 15.0)

    assert felt == GuestIo("ours", 4 * 2 / 5, 2 * 2 / 10, 5500, 1000)


def test_gap_of_a_guest_that_did_nothing_is_the_whole_time():
    assert guest_io.judge([], "ours", 0.0, 1.0, 3.0).longest_gap_ms == 2000

"""Verdicts: met, not met, not measured."""

import pytest
from benchmarks.results import Race, Sample, Series
from benchmarks.targets import TARGETS, AtMost, Ceiling, judge

OURS, PEER = "ours", "peer"


def race(ours, peer):
    return Race("r", "", [Series(OURS, ours), Series(PEER, peer)])


def took(*walls):
    return [Sample(wall, 1.0, 1) for wall in walls]


@pytest.mark.parametrize(("wall_s", "is_met"), [(1.65, True), (1.66, False)])
def test_fixed_cost_is_allowed_beside_the_limit(wall_s, is_met):
    target = AtMost("r", "at most", OURS, PEER, 1.15, fixed=0.5)

    assert target.judge([race(took(wall_s), took(1.0))]).is_met is is_met


@pytest.mark.parametrize(("wall_s", "is_met"), [(1.0, True), (1.1, False)])
def test_twice_as_fast(wall_s, is_met):
    verdict = AtMost("r", "2 x as fast", OURS, PEER, 1 / 2).judge([race(took(wall_s), took(2.0))])

    assert verdict.is_met is is_met
    assert verdict.measured.startswith(f"{2 / wall_s:.2f} x as fast ({wall_s:.2f} s, 2.00 s)")


def test_missing_peer_is_no_verdict():
    target = AtMost("r", "at most", OURS, PEER, 1.0)

    for races in ([], [Race("r", "", [Series(OURS, took(1.0))])]):
        assert target.judge(races).is_met is None


def test_worst_freeze_counts_and_median_time():
    samples = [Sample(wall, 1.0, 1, None, frozen) for wall, frozen in [(1, 90), (9, 310), (1, 80)]]
    races = [race(samples, [])]

    assert Ceiling("r", "", OURS, 300, figure="frozen_ms").judge(races).is_met is False
    assert Ceiling("r", "", OURS, 1.5).judge(races).is_met is True


def test_every_target_is_in_the_table_even_if_nothing_was_measured():
    verdicts = judge([])

    assert len(verdicts) == len(TARGETS)
    assert {verdict.is_met for verdict in verdicts} == {None}

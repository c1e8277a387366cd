"""model/read_share.py: what an admin types, and what is drawn."""

import random

import pytest

from virtbackup_async.model.read_share import ALL, LEAST_BYTES, Drawing, ReadShare, read_share_of

MIB = 1 << 20


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("all", ALL),
        ("2%", ReadShare(percent=2)),
        (" 0.5% ", ReadShare(percent=0.5)),
        ("100%", ReadShare(percent=100)),
        ("10GiB", ReadShare(length_bytes=10 << 30)),
        ("1.5M", ReadShare(length_bytes=3 << 19)),
        ("2 KB", ReadShare(length_bytes=2000)),
    ],
)
def test_what_is_typed(text, share):
    assert read_share_of(text) == share


@pytest.mark.parametrize(
    "text", ["", "2", "101%", "-2%", "%", "all%", "2%%", "GiB", "1 XB", "1e3M"]
)
def test_what_cannot_be_understood(text):
    assert read_share_of(text) is None


def test_a_percentage_means_at_least_a_pack():
    assert ReadShare(percent=2).budget(100 * LEAST_BYTES) == 2 * LEAST_BYTES
    assert ReadShare(percent=2).budget(3 * LEAST_BYTES) == LEAST_BYTES
    assert ReadShare(percent=2).budget(MIB) == MIB
    assert ReadShare(length_bytes=7).budget(MIB) == 7
    assert ALL.budget(MIB) == MIB


@pytest.mark.parametrize("seed", range(20))
def test_the_budget_is_used_up_and_exceeded_by_one_piece_at_most(seed):
    numbers = random.Random(seed)
    pieces = [numbers.randint(1, 1000) for _ in range(500)]
    total = sum(pieces)
    drawing = Drawing(ReadShare(length_bytes=total // 10), total, numbers.random)
    drawn = sum(piece for piece in pieces if drawing.draws(piece))
    assert total // 10 - 1000 <= drawn <= total // 10 + 1000


def test_every_piece_is_drawn_as_often_as_any_other():
    numbers = random.Random(1)
    times = [0] * 50
    for _ in range(2000):
        drawing = Drawing(ReadShare(length_bytes=5), 50, numbers.random)
        for place in range(50):
            times[place] += drawing.draws(1)
    assert sum(times) == 2000 * 5
    assert 150 < min(times) <= max(times) < 250


def test_all_is_all():
    drawing = Drawing(ALL, 100)
    assert all(drawing.draws(10) for _ in range(10))

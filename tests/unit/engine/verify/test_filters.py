"""Samples of ``verify``, as they are typed."""

from datetime import date, timedelta

import pytest

from virtbackup_async.engine.verify.filters import draw_sample
from virtbackup_async.errors import ConfigError


@pytest.mark.parametrize(
    ("sample", "drawn"), [("0", 0), ("3", 3), ("99", 20), ("10%", 2), ("11%", 3), ("100%", 20)]
)
def test_sample_is_a_number_or_a_share_rounded_up(sample, drawn):
    items = [f"backup-{number}" for number in range(20)]
    found = draw_sample(items, sample, date(2026, 3, 1), str)
    assert len(found) == drawn
    assert found == [item for item in items if item in found]


def test_sample_of_a_day_stays_and_that_of_many_days_comes_to_all():
    items = [f"backup-{number}" for number in range(20)]
    day = date(2026, 3, 1)
    assert draw_sample(items, "5", day, str) == draw_sample(items[:], "5", day, str)
    assert set(draw_sample(items[::-1], "5", day, str)) == set(draw_sample(items, "5", day, str))
    seen = set()
    for days in range(40):
        seen.update(draw_sample(items, "10%", day + timedelta(days=days), str))
    assert seen == set(items)


@pytest.mark.parametrize("sample", ["", "%", "101%", "-1", "1.5", "all", "10 %"])
def test_sample_that_is_none_is_refused(sample):
    with pytest.raises(ConfigError, match=r"sample .* cannot be understood"):
        draw_sample([], sample, date(2026, 3, 1), str)

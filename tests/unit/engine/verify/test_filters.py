"""Ages, dates and samples of ``verify``, as they are typed."""

from datetime import UTC, date, datetime, timedelta

import pytest

from virtbackup_async.engine.verify.filters import draw_sample, parse_age, parse_since
from virtbackup_async.errors import ConfigError

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "hours"), [("12h", 12), ("7d", 168), ("4w", 672), ("30m", 0.5), (" 1d ", 24)]
)
def test_age_is_a_number_and_a_unit(text, hours):
    assert parse_age(text) == timedelta(hours=hours)
    assert parse_since(text, NOW) == int((NOW - timedelta(hours=hours)).timestamp())


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "7 d", "1y", "7D", "٣d d"])
def test_what_is_no_age_is_refused(text):
    with pytest.raises(ConfigError, match="cannot be understood"):
        parse_age(text)
    with pytest.raises(ConfigError, match="cannot be understood"):
        parse_since(text, NOW)


def test_since_takes_a_date_too():
    assert parse_since("2026-03-01T02:15:00Z", NOW) == 1772331300
    local = datetime(2026, 3, 1).astimezone()
    assert parse_since("2026-03-01", NOW) == local.timestamp()


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

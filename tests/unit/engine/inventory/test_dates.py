"""engine/inventory/dates.py: which moments a date stands for, to the second."""

import time
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from virtbackup_async.engine.inventory.dates import (
    Span,
    at_date,
    before_date,
    date_of_name,
    is_latest,
    nearest,
    pasteable,
    spans_of,
    start_of,
)
from virtbackup_async.errors import ConfigError

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 3, 10, 12, tzinfo=BERLIN)


class Dated(Struct, frozen=True):
    """A backup as far as dates go."""

    date: int
    name: str = "20260301-021500_3_web"


def seconds(*moment, zone=BERLIN, fold=0):
    return int(datetime(*moment, tzinfo=zone, fold=fold).timestamp())


@pytest.mark.parametrize(
    ("date", "first", "end"),
    [
        ("2026-03", (2026, 3, 1), (2026, 4, 1)),
        ("2026-12", (2026, 12, 1), (2027, 1, 1)),
        ("2024-02", (2024, 2, 1), (2024, 3, 1)),
        ("2026-03-01", (2026, 3, 1), (2026, 3, 2)),
        ("2026-W09-7", (2026, 3, 1), (2026, 3, 2)),
        ("2026-03-01T02", (2026, 3, 1, 2), (2026, 3, 1, 3)),
        ("2026-03-01 02:15", (2026, 3, 1, 2, 15), (2026, 3, 1, 2, 16)),
        ("2026-03-01 02:15:07", (2026, 3, 1, 2, 15, 7), (2026, 3, 1, 2, 15, 8)),
        ("20260301-021507", (2026, 3, 1, 2, 15, 7), (2026, 3, 1, 2, 15, 8)),
        ("20260301-021507_3_gone", (2026, 3, 1, 2, 15, 7), (2026, 3, 1, 2, 15, 8)),
    ],
)
def test_a_date_is_the_whole_unit_and_no_second_more(berlin, date, first, end):
    span = spans_of(date)[0]
    assert span == Span(seconds(*first), seconds(*end))
    assert span.first in span
    assert span.end not in span
    assert start_of(date) == span.first


def test_the_hour_that_comes_twice_is_both_and_the_one_left_out_is_none(berlin):
    twice = spans_of("2026-10-25T02")[0]
    assert twice.end - twice.first == 2 * 3600
    gone = spans_of("2026-03-29T02")[0]
    assert gone.first == gone.end
    assert gone.first not in gone


def test_a_minute_may_be_of_the_second_hour_or_of_utc(berlin):
    assert [span.first for span in spans_of("2026-10-25 02:30")] == [
        seconds(2026, 10, 25, 2, 30),
        seconds(2026, 10, 25, 2, 30, fold=1),
        seconds(2026, 10, 25, 2, 30, zone=UTC),
    ]


def test_an_offset_leaves_one_meaning(berlin):
    assert spans_of("2026-03-01T02:15+00:00") == [
        Span(seconds(2026, 3, 1, 2, 15, zone=UTC), seconds(2026, 3, 1, 2, 16, zone=UTC))
    ]


def test_the_last_before_a_date_is_by_its_local_meaning(berlin):
    """Not by the one in UTC, an hour later, in which there is a backup, too."""
    early, late = Dated(seconds(2026, 3, 1, 2, 14)), Dated(seconds(2026, 3, 1, 3, 14))
    assert before_date([early, late], "2026-03-01 02:15") is early
    at_the_end = Dated(seconds(2026, 3, 1, 2, 16))
    assert before_date([early, at_the_end], "2026-03-01 02:15") is early
    assert before_date([at_the_end], "2026-03-01 02:15") is None


def test_the_last_in_a_unit_is_meant(berlin):
    backups = [Dated(seconds(2026, 3, 1, hour)) for hour in (1, 2, 23)] + [
        Dated(seconds(2026, 3, 2))
    ]
    assert at_date(backups, "2026-03-01") is backups[2]
    assert at_date(backups, "2026-03-03") is None


def test_the_nearest_come_first(berlin):
    backups = [Dated(seconds(2026, 3, day)) for day in (1, 4, 5, 20)]
    assert nearest(backups, "2026-03-05", 2) == [backups[2], backups[1]]


def test_a_name_tells_its_moment(berlin):
    assert date_of_name("20260301-021500_3_web.json") == seconds(2026, 3, 1, 2, 15)
    assert date_of_name("notes.txt") is None


@pytest.mark.parametrize(
    "date",
    [
        "",
        "latest",
        "yesterday-ish",
        "24:00",
        "18:60",
        "1:2",
        "today 25",
        "2026-13",
        "2026-02-30",
        "2026-03-01T25",
    ],
)
def test_what_is_no_date_is_refused(date):
    with pytest.raises(ConfigError, match="cannot be understood") as caught:
        spans_of(date)
    assert "2026-03-01" in caught.value.hint


@pytest.mark.parametrize(
    ("date", "first", "end"),
    [
        ("today", (2026, 3, 10), (2026, 3, 11)),
        ("Yesterday", (2026, 3, 9), (2026, 3, 10)),
        (" yesterday 18:29", (2026, 3, 9, 18, 29), (2026, 3, 9, 18, 30)),
        ("yesterday 8:29:07", (2026, 3, 9, 8, 29, 7), (2026, 3, 9, 8, 29, 8)),
        ("today 08", (2026, 3, 10, 8), (2026, 3, 10, 9)),
        ("todayT8:05", (2026, 3, 10, 8, 5), (2026, 3, 10, 8, 6)),
        ("08:29", (2026, 3, 10, 8, 29), (2026, 3, 10, 8, 30)),
        ("8:29:07", (2026, 3, 10, 8, 29, 7), (2026, 3, 10, 8, 29, 8)),
        ("12:00", (2026, 3, 10, 12), (2026, 3, 10, 12, 1)),
        ("12:01", (2026, 3, 9, 12, 1), (2026, 3, 9, 12, 2)),
        ("18:29", (2026, 3, 9, 18, 29), (2026, 3, 9, 18, 30)),
        ("3d", (2026, 3, 6, 12, 0, 1), (2026, 3, 7, 12, 0, 1)),
        ("12h", (2026, 3, 9, 23, 0, 1), (2026, 3, 10, 0, 0, 1)),
        ("30m", (2026, 3, 10, 11, 29, 1), (2026, 3, 10, 11, 30, 1)),
        (" 1w ", (2026, 2, 24, 12, 0, 1), (2026, 3, 3, 12, 0, 1)),
    ],
)
def test_a_date_may_be_told_from_now(berlin, date, first, end):
    assert spans_of(date, NOW)[0] == Span(seconds(*first), seconds(*end))


def test_an_age_is_the_one_that_is_shown(berlin):
    """A backup that is 3 days and 23 hours old is 3 days old; one of 4 days is not."""
    now = int(NOW.timestamp())
    for age_s, days in ((0, 0), (86399, 0), (86400, 1), (4 * 86400 - 1, 3), (4 * 86400, 4)):
        backups = [Dated(now - age_s)]
        found = [day for day in range(7) if at_date(backups, f"{day}d", NOW)]
        assert found == [days]
    assert at_date([Dated(now + 1)], "0d", NOW) is None


@pytest.mark.parametrize(("text", "hours"), [("12h", 12), (" 7d ", 168), ("4w", 672), ("30m", 0.5)])
def test_since_an_age_is_since_that_moment(berlin, text, hours):
    assert start_of(text, NOW) == (NOW - timedelta(hours=hours)).timestamp()
    assert start_of(f"{'9' * 6}w", NOW) < 0


@pytest.mark.parametrize("text", ["7", "d", "-1d", "7 d", "1y", "7D", "\u0663d", "3months"])
def test_what_is_no_age_is_refused_with_how_all_dates_are_written(text):
    for read in (spans_of, start_of):
        with pytest.raises(ConfigError, match="cannot be understood") as caught:
            read(text, NOW)
        assert "12h, 7d or 4w" in caught.value.hint
        assert "2026-03-01" in caught.value.hint


def test_an_age_is_elapsed_time_and_a_day_is_one_of_the_calendar(berlin):
    """The day on which the clock goes forward has 23 hours, the one on which it goes back 25."""
    spring = datetime(2026, 3, 29, 12, tzinfo=BERLIN)
    assert start_of("1d", spring) == seconds(2026, 3, 28, 11)
    assert start_of("yesterday", spring) == seconds(2026, 3, 28)
    (today,) = spans_of("today", spring)
    assert today.end - today.first == 23 * 3600
    autumn = datetime(2026, 10, 25, 12, tzinfo=BERLIN)
    assert start_of("1d", autumn) == seconds(2026, 10, 24, 13)
    (yesterday,) = spans_of("yesterday", autumn + timedelta(days=1))
    assert yesterday.end - yesterday.first == 25 * 3600
    just_after = datetime(2026, 10, 26, 0, 30, tzinfo=BERLIN)  # 24 hours ago was the same day
    assert start_of("yesterday", just_after) == seconds(2026, 10, 25)


def test_a_time_that_the_spring_left_out_was_last_shown_the_day_before(berlin):
    morning = datetime(2026, 3, 29, 9, tzinfo=BERLIN)
    assert spans_of("02:30", morning)[0].first == seconds(2026, 3, 28, 2, 30)
    assert spans_of("03:30", morning)[0].first == seconds(2026, 3, 29, 3, 30)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ((2026, 10, 25, 9), [(2026, 10, 25, 2, 30, 0, 1), (2026, 10, 25, 2, 30, 0, 0)]),
        ((2026, 10, 25, 2, 40, 0, 1), [(2026, 10, 25, 2, 30, 0, 1), (2026, 10, 25, 2, 30, 0, 0)]),
        ((2026, 10, 25, 2, 10, 0, 1), [(2026, 10, 25, 2, 30, 0, 0)]),
        ((2026, 10, 25, 2, 40, 0, 0), [(2026, 10, 25, 2, 30, 0, 0)]),
        ((2026, 10, 25, 2, 10, 0, 0), [(2026, 10, 24, 2, 30, 0, 0)]),
    ],
)
def test_a_time_that_came_twice_is_the_later_that_has_been(berlin, now, expected):
    *moment, fold = now if len(now) == 7 else (*now, 0)
    local = datetime(*moment, tzinfo=BERLIN, fold=fold)
    firsts = dict.fromkeys(span.first for span in spans_of("02:30", local))
    assert list(firsts) == [seconds(*one[:6], fold=one[6]) for one in expected]


def test_a_minute_that_the_spring_left_out_holds_no_local_moment(berlin):
    local, of_utc = spans_of("2026-03-29 02:30")
    assert local.first == local.end == seconds(2026, 3, 29, 3)
    assert of_utc.first == seconds(2026, 3, 29, 2, 30, zone=UTC)
    before, after = Dated(seconds(2026, 3, 29, 1, 59)), Dated(seconds(2026, 3, 29, 3, 30))
    assert at_date([before, after], "2026-03-29 02:30") is None
    assert before_date([before, after], "2026-03-29 02:30") is before


def test_latest_is_the_newest():
    backups = [Dated(1), Dated(2)]
    assert is_latest(" Latest ")
    assert at_date(backups, "latest") is backups[1]
    assert at_date([], "latest") is None


@pytest.mark.usefixtures("berlin_for_all")
@given(
    st.integers(1792890000 - 90_000, 1792890000 + 90_000)
    | st.integers(1774746000 - 90_000, 1774746000 + 90_000)
    | st.integers(0, 4_000_000_000)
)
def test_a_shown_date_means_the_moment_that_it_shows(moment):
    text = pasteable(datetime.fromtimestamp(moment, UTC))
    assert spans_of(text)[0] == Span(moment, moment + 1)


@pytest.mark.usefixtures("berlin_for_all")
def test_a_date_in_the_hour_that_comes_twice_is_shown_with_its_offset():
    first = int(datetime(2026, 10, 25, 0, 30, tzinfo=UTC).timestamp())
    shown = [
        pasteable(datetime.fromtimestamp(moment, UTC))
        for moment in (first - 3600, first, first + 3600, first + 7200)
    ]
    assert shown == [
        "2026-10-25 01:30:00",
        "2026-10-25 02:30:00+02:00",
        "2026-10-25 02:30:00+01:00",
        "2026-10-25 03:30:00",
    ]


@pytest.fixture(scope="module")
def berlin_for_all():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()

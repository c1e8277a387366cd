"""engine/inventory/dates.py: which moments a date stands for, to the second."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from msgspec import Struct

from virtbackup_async.engine.inventory.dates import (
    Span,
    at_date,
    before_date,
    date_of_name,
    nearest,
    spans_of,
    start_of,
)
from virtbackup_async.errors import ConfigError

BERLIN = ZoneInfo("Europe/Berlin")


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


@pytest.mark.parametrize("date", ["", "yesterday", "2026-13", "2026-02-30", "2026-03-01T25"])
def test_what_is_no_date_is_refused(date):
    with pytest.raises(ConfigError, match="cannot be understood") as caught:
        spans_of(date)
    assert "2026-03-01" in caught.value.hint

"""engine/clean/retention.py: what stays, by rules that hold for whatever dates there are."""

from dataclasses import asdict, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtbackup_async.catalog.scanning import FoundBackup
from virtbackup_async.config.schema import Retention
from virtbackup_async.engine.clean.retention import DAMAGED, DROPPED, EXPIRED, decide
from virtbackup_async.model.backup import Definition, Packager, Verification
from virtbackup_async.model.target_file import TargetFile

BERLIN, NEW_YORK = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York")
NONE = Retention(0, 0, 0, 0, 0)
DOC = (Path(__file__).parents[4] / "docs/reference/clean.md").read_text()
NOW = datetime(2030, 1, 1, tzinfo=UTC)


def backup(date, *, pinned=False, damaged=None, name="web"):
    definition = Definition(
        name=f"{date}_{name}", domain_id=1, domain_name="web", domain_xml="", disks={},
        version="1.0.0", date=date, packager=Packager("directory"), pinned=pinned,
        verified=None if damaged is None else Verification(date, ok=not damaged, digests=True),
    )  # fmt: skip
    return FoundBackup(definition, TargetFile.of(Path(f"/t/web/{date:011}_{name}.json")))


def at(zone, *moment, fold=0):
    return backup(int(datetime(*moment, tzinfo=zone, fold=fold).timestamp()))


def kept(backups, *policies, zone=UTC, now=NOW):
    verdicts = decide(backups, policies, now, zone)
    return [backups.index(verdict.found) for verdict in verdicts if verdict.keep]


def reasons(backups, *policies, zone=UTC, now=NOW):
    return [verdict.reasons for verdict in decide(backups, policies, now, zone)]


def rule(**changed):
    return Retention(**{**asdict(NONE), **changed})


def test_nothing_to_judge():
    assert decide([], [Retention()], NOW) == []


def test_the_first_of_each_of_the_last_days_that_have_one():
    moments = [(1, 2), (2, 2), (2, 14), (5, 2), (5, 14), (5, 20)]
    backups = [at(UTC, 2026, 7, day, hour) for day, hour in moments]
    assert reasons(backups, rule(daily=2)) == [
        (EXPIRED,),
        ("first of day 2026-07-02",),
        (EXPIRED,),
        ("first of day 2026-07-05",),
        (EXPIRED,),
        ("newest",),
    ]


def test_the_example_of_the_docs():
    days = [(6, 29), (6, 30), *((7, day) for day in range(1, 10))]
    backups = [at(UTC, 2026, month, day, 2) for month, day in days] + [at(UTC, 2026, 7, 9, 14)]
    said = reasons(backups, rule(daily=3, weekly=2))
    rows = [row for row in DOC.splitlines() if row.startswith(("| Mon", "| Tue", "| Wed", "| Thu"))]
    kept_in_doc = [row.split("stays: ")[1].strip(" |") for row in rows if "stays" in row]
    assert [", ".join(why) for why in said if why != (EXPIRED,)] == kept_in_doc
    assert said.count((EXPIRED,)) == 6


def test_none_keeps_the_first_of_every_period_and_zero_no_period():
    backups = [at(UTC, year, month, 1) for year in (2020, 2021, 2022) for month in (1, 5)]
    assert kept(backups, rule(yearly=None)) == [0, 2, 4, 5]
    assert kept(backups, NONE) == [5]


def test_an_iso_week_over_a_month_s_end_is_one_week():
    """virt-backup takes 2026-06-29 and 2026-07-01, of one week, for two weeks."""
    backups = [at(UTC, 2026, 6, 22), at(UTC, 2026, 6, 29), at(UTC, 2026, 7, 1), at(UTC, 2026, 7, 5)]
    assert reasons(backups, rule(weekly=2)) == [
        ("first of ISO week 2026-W26",),
        ("first of ISO week 2026-W27",),
        (EXPIRED,),
        ("newest",),
    ]


def test_week_53_and_the_days_of_a_new_year_that_belong_to_it():
    backups = [at(UTC, 2026, 12, 28), at(UTC, 2027, 1, 3), at(UTC, 2027, 1, 4), at(UTC, 2027, 1, 9)]
    assert reasons(backups, rule(weekly=5)) == [
        ("first of ISO week 2026-W53",),
        (EXPIRED,),
        ("first of ISO week 2027-W01",),
        ("newest",),
    ]


@pytest.mark.parametrize(
    ("zone", "day", "hour", "offsets"),
    [
        (BERLIN, (2026, 10, 25), 2, ("+0200", "+0100")),
        (NEW_YORK, (2026, 11, 1), 1, ("-0400", "-0500")),
    ],
)
def test_an_hour_that_comes_twice_is_two_hours(zone, day, hour, offsets):
    backups = [at(zone, *day, hour, minute, fold=fold) for fold in (0, 1) for minute in (10, 40)]
    label = f"first of hour {datetime(*day, tzinfo=zone):%Y-%m-%d} {hour:02}:00"
    assert reasons(backups, rule(hourly=5), zone=zone) == [
        (f"{label}{offsets[0]}",),
        (EXPIRED,),
        (f"{label}{offsets[1]}",),
        ("newest",),
    ]
    assert kept(backups, rule(hourly=1), zone=zone) == [2, 3]
    assert kept(backups, rule(daily=1), zone=zone) == [0, 3]


@pytest.mark.parametrize("zone", [BERLIN, NEW_YORK])
def test_the_day_on_which_summer_begins_is_one_day(zone):
    day = (2026, 3, 29) if zone is BERLIN else (2026, 3, 8)
    backups = [at(zone, *day, hour) for hour in (0, 1, 3, 23)]
    assert kept(backups, rule(daily=5), zone=zone) == [0, 3]
    assert kept(backups, rule(hourly=5), zone=zone) == [0, 1, 2, 3]


def test_periods_are_those_of_the_zone():
    backups = [at(UTC, 2026, 1, 1, 22), at(UTC, 2026, 1, 1, 23, 30), at(UTC, 2026, 1, 2, 1)]
    assert kept(backups, rule(daily=5), zone=BERLIN) == [0, 1, 2]
    assert kept(backups, rule(daily=5), zone=UTC) == [0, 2]


def test_keep_last_counts_backups():
    backups = [at(UTC, 2026, 7, 1, hour) for hour in range(6)]
    assert kept(backups, rule(keep_last=3)) == [3, 4, 5]
    assert kept(backups, rule(keep_last=None)) == list(range(6))


def test_what_any_group_keeps_stays():
    backups = [at(UTC, 2025, 1, 1), at(UTC, 2026, 1, 1), at(UTC, 2026, 1, 2), at(UTC, 2026, 1, 3)]
    assert kept(backups, rule(yearly=2), rule(keep_last=2)) == [0, 1, 2, 3]


def test_a_pinned_backup_stays_and_counts():
    old = backup(1000, pinned=True)
    new = backup(2000)
    assert reasons([old, new], NONE) == [("pinned",), ("newest",)]


def test_a_date_in_the_future_neither_goes_nor_counts():
    """A clock that once was wrong must not make every backup but that one expire."""
    future = int((NOW + timedelta(days=400)).timestamp())
    backups = [at(UTC, 2026, 1, 1), at(UTC, 2026, 1, 2), backup(future)]
    policy = rule(yearly=1, keep_last=1)
    assert reasons(backups, policy) == [
        ("first of year 2026",),
        ("newest", "one of the newest"),
        ("dated in the future",),
    ]


def test_a_backup_of_this_very_second_counts():
    assert reasons([backup(int(NOW.timestamp()))], NONE) == [("newest",)]
    assert reasons([backup(int(NOW.timestamp()) + 1)], NONE) == [("dated in the future",)]


def test_a_damaged_backup_counts_for_no_rule():
    """The newest two and an old one were found damaged: the good ones must not go for them."""
    days = [(1, 5), (2, 3), (2, 20), (3, 1), (3, 2), (3, 3), (3, 4)]
    backups = [
        backup(
            int(datetime(2026, *day, tzinfo=UTC).timestamp()), damaged=day in days[:1] + days[5:]
        )
        for day in days
    ]
    assert reasons(backups, rule(daily=2, monthly=1)) == [
        (DAMAGED,),
        (EXPIRED,),
        (EXPIRED,),
        ("first of day 2026-03-01", "first of month 2026-03"),
        ("newest", "first of day 2026-03-02"),
        (DAMAGED,),
        (DAMAGED,),
    ]
    dropped = decide(backups, [rule(daily=2, monthly=1)], NOW, UTC, drop_damaged=True)
    assert [(verdict.keep, verdict.reasons[0]) for verdict in dropped] == [
        (False, DROPPED),
        (False, EXPIRED),
        (False, EXPIRED),
        (True, "first of day 2026-03-01"),
        (True, "newest"),
        (True, DAMAGED),
        (True, DAMAGED),
    ]


@pytest.mark.parametrize("before", [[], [500]], ids=["one good", "two good"])
def test_what_was_found_damaged_before_the_newest_good_backup_is_dropped(before):
    backups = [*map(backup, before), backup(1000, damaged=True), backup(2000)]
    verdicts = decide(backups, [NONE], NOW, UTC, drop_damaged=True)
    assert [verdict.reasons for verdict in verdicts[len(before) :]] == [(DROPPED,), ("newest",)]
    assert [verdict.keep for verdict in verdicts[len(before) :]] == [False, True]


def test_where_none_is_good_all_stay():
    backups = [backup(date, damaged=True) for date in (1000, 2000)]
    for drop_damaged in (False, True):
        verdicts = decide(backups, [NONE], NOW, UTC, drop_damaged=drop_damaged)
        assert [verdict.keep for verdict in verdicts] == [True, True]


COUNTS = st.none() | st.integers(0, 6)
POLICIES = st.builds(Retention, *[COUNTS for _ in fields(Retention)])
# A few years, dense enough that periods are shared.
DATES = st.lists(
    st.integers(1_700_000_000, 1_760_000_000)
    | st.integers(1_761_400_000, 1_761_450_000)  # summer ends in Berlin
    | st.integers(1_762_030_000, 1_762_080_000),  # and in New York
    max_size=30,
    unique=True,
)
ZONES = st.sampled_from([BERLIN, NEW_YORK, UTC, ZoneInfo("Australia/Lord_Howe")])


def dates_kept(dates, *policies, zone):
    return {
        verdict.found.definition.date
        for verdict in decide(map(backup, dates), policies, NOW, zone)
        if verdict.keep
    }


def brute_force(dates, policy, zone):
    """The policy once more, straight from its description."""

    def period(date):
        moment = datetime.fromtimestamp(date, zone)
        return {
            "hourly": (moment.date(), moment.hour, moment.utcoffset()),
            "daily": moment.date(),
            "weekly": moment.isocalendar()[:2],
            "monthly": (moment.year, moment.month),
            "yearly": moment.year,
        }

    newest_first = sorted(dates, reverse=True)
    keep = set(newest_first[:1])
    keep |= set(newest_first if policy.keep_last is None else newest_first[: policy.keep_last])
    for name in ("hourly", "daily", "weekly", "monthly", "yearly"):
        wanted = getattr(policy, name)
        seen = list(dict.fromkeys(period(date)[name] for date in newest_first))
        for label in seen if wanted is None else seen[:wanted]:
            keep.add(min(date for date in dates if period(date)[name] == label))
    return keep


@given(DATES, POLICIES, ZONES)
def test_verdicts_are_those_of_the_description(dates, policy, zone):
    assert dates_kept(dates, policy, zone=zone) == brute_force(dates, policy, zone)


@given(DATES, POLICIES, ZONES)
def test_what_stays_would_stay_again(dates, policy, zone):
    once = dates_kept(dates, policy, zone=zone)
    assert dates_kept(once, policy, zone=zone) == once


@given(DATES, POLICIES, POLICIES, ZONES)
def test_two_policies_keep_what_each_keeps(dates, one, other, zone):
    both = dates_kept(dates, one, other, zone=zone)
    assert both == dates_kept(dates, one, zone=zone) | dates_kept(dates, other, zone=zone)


@given(DATES, POLICIES, ZONES, st.integers(1_762_080_001, 1_800_000_000))
def test_a_newer_backup_brings_no_expired_one_back(dates, policy, zone, newer):
    expired = set(dates) - dates_kept(dates, policy, zone=zone)
    assert not expired & dates_kept([*dates, newer], policy, zone=zone)


@given(DATES, POLICIES, ZONES, st.randoms())
def test_the_order_does_not_matter_and_all_are_judged_once(dates, policy, zone, random):
    shuffled = random.sample(dates, len(dates))
    verdicts = decide(map(backup, shuffled), [policy], NOW, zone)
    assert verdicts == decide(map(backup, dates), [policy], NOW, zone)
    assert sorted(verdict.found.definition.date for verdict in verdicts) == sorted(dates)


MARKS = st.lists(st.tuples(st.booleans(), st.sampled_from([None, False, True])), min_size=30)


@given(DATES, POLICIES, ZONES, MARKS, st.booleans())
def test_damage_costs_no_good_backup(dates, policy, zone, marks, drop_damaged):
    """Whatever is pinned or damaged: good ones are judged as if the damaged were not there."""
    backups = [
        backup(date, pinned=pinned, damaged=damaged)
        for date, (pinned, damaged) in zip(dates, marks, strict=False)
    ]
    good = [found for found in backups if not found.definition.is_damaged]
    verdicts = decide(backups, [policy], NOW, zone, drop_damaged=drop_damaged)
    of_good = [verdict for verdict in verdicts if not verdict.found.definition.is_damaged]
    assert of_good == decide(good, [policy], NOW, zone)
    newest = max((found.definition.date for found in good), default=0)
    assert not good or any(
        verdict.keep and verdict.found.definition.date == newest for verdict in of_good
    )
    for verdict in verdicts:
        definition = verdict.found.definition
        if definition.is_damaged:
            may_go = drop_damaged and not definition.pinned and definition.date < newest
            assert verdict.keep != may_go

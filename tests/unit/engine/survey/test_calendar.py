"""When the backups of a guest go: the next month, played by the rules."""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

from virtbackup_async.catalog.scanning import FoundBackup
from virtbackup_async.config.schema import Retention
from virtbackup_async.engine.survey.calendar import play
from virtbackup_async.model.backup import Definition, Packager
from virtbackup_async.model.target_file import TargetFile

NOW = datetime(2026, 7, 15, 8, tzinfo=UTC)
NONE = Retention(0, 0, 0, 0, 0)


def backup(moment, *, pinned=False):
    date = int(moment.timestamp())
    definition = Definition(
        name=f"{moment:%m-%d %H}", domain_id=1, domain_name="web", domain_xml="", disks={},
        version="1.0.0", date=date, packager=Packager("directory"), pinned=pinned,
    )  # fmt: skip
    return FoundBackup(definition, TargetFile.of(Path(f"/t/web/{date}.json")))


def nightly(count, **different):
    last = NOW.replace(hour=2)
    nights = (last - timedelta(days=days) for days in reversed(range(count)))
    return [backup(night, **different) for night in nights]


def goes(backups, **rules):
    played = play(backups, [Retention(**{**asdict(NONE), **rules})], NOW, UTC)
    today = NOW.toordinal()
    return {kept.name: None if kept.goes is None else kept.goes - today for kept in played}


def test_each_night_the_oldest_of_the_last_days_goes():
    assert goes(nightly(4), daily=3) == {"07-12 02": 0, "07-13 02": 1, "07-14 02": 2, "07-15 02": 3}


def test_the_first_of_a_month_stays_for_long():
    found = goes([backup(datetime(2026, 7, 1, 2, tzinfo=UTC)), *nightly(3)], daily=2, monthly=2)
    # The 1st of July is one of the last two months until September.
    assert found["07-01 02"] is None
    assert found["07-14 02"] == 1


def test_pinned_backups_never_go():
    assert set(goes(nightly(3, pinned=True), daily=1).values()) == {None}


def test_weekly_backups_are_played_weekly():
    weekly = [backup(NOW - timedelta(days=7 * weeks)) for weeks in (2, 1, 0)]
    assert list(goes(weekly, keep_last=2).values()) == [0, 7, 14]


def test_why_a_backup_stays_is_said():
    (kept,) = play(nightly(1), [Retention()], NOW, UTC)
    assert kept.reasons[0] == "newest"
    assert kept.goes is not None or kept.reasons


def test_nothing_and_what_is_of_the_future_is_no_matter():
    assert play([], [Retention()], NOW, UTC) == ()
    (kept,) = play([backup(NOW + timedelta(days=3))], [NONE], NOW, UTC)
    assert (kept.reasons, kept.goes) == (("dated in the future",), None)


def test_backups_of_each_minute_are_played_in_bounded_time():
    backups = [backup(NOW - timedelta(minutes=minutes)) for minutes in reversed(range(60))]
    assert sum(kept.goes is not None for kept in play(backups, [NONE], NOW, UTC)) == 60

"""The choice of backups to verify: samples, ages and dates, as they are typed."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from virtbackup_async.catalog.scanning import FoundBackup
from virtbackup_async.engine.inventory.dates import start_of
from virtbackup_async.engine.inventory.group_backups import GroupBackups
from virtbackup_async.engine.verify.filters import BackupFilter, VerifyRequest, draw_sample
from virtbackup_async.errors import ConfigError
from virtbackup_async.model.backup import Definition, Packager, Verification
from virtbackup_async.model.target_file import TargetFile

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
DAY_S = 86400
A_WEEK_AGO = int(start_of("7d", NOW))


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


def backup(date_s, verified_s=None, *, ok=True):
    definition = Definition(
        name=f"{date_s}_web", domain_id=1, domain_name="web", domain_xml="", disks={},
        version="1.0.0", date=date_s, packager=Packager("directory"),
        verified=None if verified_s is None else Verification(verified_s, ok=ok, digests=True),
    )  # fmt: skip
    return FoundBackup(definition, TargetFile.of(Path(f"/t/web/{date_s}_{verified_s}.json")))


def group(name, *backups):
    def every(_domain):
        return True

    return GroupBackups(name, backups, (), None, every, every, Path("/t"), None)


def chosen(*backups, **asked):
    found = BackupFilter(VerifyRequest(**asked), NOW).choose([group("g", *backups)])
    return [one.found for one in found]


def test_without_a_wish_all_are_verified():
    backups = [backup(1), backup(NOW.timestamp(), 5), backup(2, 6, ok=False)]
    assert chosen(*backups) == backups


def test_newer_than_means_that_moment_too():
    old, then, new = (backup(A_WEEK_AGO + seconds) for seconds in (-1, 0, 1))
    assert chosen(old, then, new, newer_than="7d") == [then, new]


def test_what_was_verified_since_is_passed_over_unless_it_was_damaged():
    never, before, since, damaged = (
        backup(1), backup(2, A_WEEK_AGO - 1), backup(3, A_WEEK_AGO),
        backup(4, A_WEEK_AGO + DAY_S, ok=False),
    )  # fmt: skip
    found = chosen(never, before, since, damaged, not_verified_since="7d")
    assert found == [never, before, damaged]


def test_both_wishes_hold_and_the_sample_is_drawn_of_what_is_left():
    old = [backup(A_WEEK_AGO - number) for number in range(1, 30)]
    done = [backup(A_WEEK_AGO + number, A_WEEK_AGO + number) for number in range(30)]
    left = [backup(A_WEEK_AGO + number) for number in range(100, 104)]
    wishes = {"newer_than": "7d", "not_verified_since": "7d"}
    assert chosen(*old, *done, *left, **wishes) == left
    assert len(chosen(*old, *done, *left, **wishes, sample="50%")) == 2


def test_a_backup_of_two_groups_is_verified_once_for_the_first():
    one = backup(1)
    found = BackupFilter(VerifyRequest(), NOW).choose([group("a", one), group("b", one)])
    assert [(each.group, each.found) for each in found] == [("a", one)]


@pytest.mark.parametrize("wish", ["newer_than", "not_verified_since", "sample"])
def test_a_wish_that_cannot_be_understood_is_refused_before_a_target_is_read(wish):
    with pytest.raises(ConfigError, match="gibberish"):
        BackupFilter(VerifyRequest(**{wish: "gibberish"}), NOW)

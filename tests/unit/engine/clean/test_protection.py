"""engine/clean/protection.py: no date that a thief makes up removes a real backup."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from object_stores import memory_object_storage
from virtbackup_async.catalog.amendment import amend_definition
from virtbackup_async.catalog.scanning import FoundBackup
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.config.patterns import parse_pattern
from virtbackup_async.config.schema import Group, HostEntry, Retention
from virtbackup_async.engine.clean.protection import (
    CONTRADICTED,
    UNPROTECTED,
    Protection,
    protection_of,
    window_of,
)
from virtbackup_async.engine.clean.retention import decide
from virtbackup_async.model.backup import Definition, Packager, Verification
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.model.target_file import TargetFile
from virtbackup_async.repository.storage.repository_file import STORAGES

DAY_S = 86400
NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
NOW_S = NOW.timestamp()
RULES = Retention(hourly=0, daily=3, weekly=0, monthly=0, yearly=0)
WINDOW_S = 30 * DAY_S


def backup(date_s, name="real", *, damaged=False):
    definition = Definition(
        name=f"{name}-{date_s:.0f}", domain_id=1, domain_name="web", domain_xml="", disks={},
        version="1.0.0", date=int(date_s), packager=Packager("repository"),
        verified=Verification(int(date_s), ok=False, digests=True) if damaged else None,
    )  # fmt: skip
    return FoundBackup(definition, TargetFile.of(Path(f"/t/web/{definition.name}.json")))


def decisions(stored, window_s=WINDOW_S, **options):
    """The decisions about backups, each with the time when the target got it."""
    times = {found.path: at_s for found, at_s in stored}
    protection = Protection(window_s, NOW_S, times)
    found = decide(
        [found for found, _ in stored], [RULES], NOW, UTC, protection=protection, **options
    )
    return {each.found.definition.name: each for each in found}


def test_what_was_stored_lately_stays():
    nights = [(backup(at_s), at_s) for at_s in (NOW_S - night * DAY_S for night in range(60))]
    found = decisions(nights)
    for night, (kept, _) in enumerate(nights):
        decision = found[kept.definition.name]
        assert decision.keep is (night < 30)
        if 3 <= night < 30:
            assert decision.reasons[-1].startswith("protected: stored")


def test_what_is_stored_for_long_goes_by_the_rules():
    old_s = NOW_S - 31 * DAY_S
    stored = [(backup(old_s), old_s), (backup(NOW_S), NOW_S), (backup(old_s + 60), old_s + 60)]
    kept = {name for name, each in decisions(stored).items() if each.keep}
    assert len(kept) == 2  # the newest, and the first of the other day


def test_damaged_ones_are_protected_too():
    stored = [(backup(NOW_S - DAY_S, damaged=True), NOW_S - DAY_S), (backup(NOW_S), NOW_S)]
    assert all(each.keep for each in decisions(stored, drop_damaged=True).values())


@given(st.lists(st.floats(-400 * DAY_S, 400 * DAY_S), min_size=1, max_size=40))
def test_no_made_up_date_removes_a_real_backup_of_the_window(dates):
    """A thief adds backups of any dates now; the real ones of the window all stay."""
    nights = [(backup(at_s), at_s) for at_s in (NOW_S - night * DAY_S for night in range(30))]
    made_up = [(backup(NOW_S + date_s, f"evil{n}"), NOW_S) for n, date_s in enumerate(dates)]
    found = decisions([*nights, *made_up])
    assert all(found[real.definition.name].keep for real, _ in nights)


@given(st.lists(st.floats(-400 * DAY_S, 400 * DAY_S), min_size=1, max_size=40))
def test_no_contradicted_date_takes_the_place_of_a_real_backup(dates):
    """Also long after: what counts is dated when it was stored."""
    stored_s = NOW_S - 100 * DAY_S
    nights = [
        (backup(at_s), at_s) for at_s in (stored_s - (night + 3) * DAY_S for night in range(10))
    ]
    alone = {name for name, each in decisions(nights).items() if each.keep}
    made_up = [
        (backup(stored_s + date_s, f"evil{n}"), stored_s)
        for n, date_s in enumerate(dates)
        if not -2 * DAY_S <= date_s <= 3600
    ]
    found = decisions([*nights, *made_up])
    assert all(found[name].keep for name in alone)
    for each, _ in made_up:
        assert found[each.definition.name].keep
        assert CONTRADICTED in found[each.definition.name].reasons


@pytest.mark.parametrize(
    ("late_s", "contradicts"),
    [(0, False), (47 * 3600, False), (49 * 3600, True), (-1800, False), (-7200, True)],
)
def test_a_backup_may_take_two_days_and_clocks_differ_by_an_hour(late_s, contradicts):
    found = backup(NOW_S - 50 * DAY_S)
    protection = Protection(WINDOW_S, NOW_S, {found.path: NOW_S - 50 * DAY_S + late_s})
    assert protection.contradicts(found) is contradicts
    assert not UNPROTECTED.contradicts(found)
    assert UNPROTECTED.reason(found) is None


def test_the_longest_window_of_the_groups_of_a_domain_counts():
    web = (HostEntry(parse_pattern("web")),)
    groups = [
        Group("a", None, hosts=web, protect=timedelta(days=3)),
        Group("b", None, hosts=web, protect=timedelta(days=30)),
        Group("c", None, hosts=web),
        Group("d", None, hosts=(HostEntry(parse_pattern("db")),), protect=timedelta(days=90)),
    ]
    assert window_of(groups, "web") == timedelta(days=30)
    assert window_of(groups, "db") == timedelta(days=90)
    assert window_of(groups, "other") is None


def test_the_target_says_when_it_got_what(tmp_path):
    (tmp_path / "web").mkdir()
    target = StorageLocation.of(tmp_path)
    found = backup(NOW_S)
    path = TargetFile(target, "web/a.json")
    (tmp_path / "web" / "a.json").write_bytes(b"{}")
    here = FoundBackup(found.definition, path)
    gone = FoundBackup(found.definition, TargetFile(target, "web/gone.json"))
    protection = protection_of(target, [here, gone], timedelta(days=30))
    assert protection.reason(here) == "protected: stored 0 minutes ago"
    assert protection.reason(gone) == "protected: stored 0 minutes ago"
    assert protection.contradicts(here)
    assert protection_of(target, [here], None) is UNPROTECTED


async def test_in_an_object_store_a_list_says_how_old_all_backups_are(monkeypatch):
    storage = memory_object_storage()
    monkeypatch.setitem(STORAGES, "test", lambda _at: storage)
    target = StorageLocation("test", "one")
    names = [f"2029120{day}-000000_1_web" for day in range(1, 8)]
    found = []
    for name in names:
        definition = Definition(
            name=name, domain_id=1, domain_name="web", domain_xml="<domain/>",
            disks={"vda": f"{name}_vda.raw"}, version="1.0.0", date=int(NOW_S),
            packager=Packager("repository"),
        )  # fmt: skip
        storage.put_new(f"web/{name}_vda.raw.map", b"map")
        storage.put_new(f"web/{name}.json", b"{}")
        found.append(FoundBackup(definition, TargetFile(target, f"web/{name}.json")))
    before = storage.traffic.total().requests
    protection = protection_of(target, found, timedelta(days=30))
    assert storage.traffic.total().requests - before <= 3  # the clock, and a list
    assert len(protection.stored_s) == len(names)
    assert all(protection.reason(each) for each in found)


async def test_a_backup_is_as_old_as_its_package_however_often_it_is_verified(tmp_path):
    (tmp_path / "web").mkdir()
    stored_s = NOW_S - 40 * DAY_S
    name = f"{datetime.fromtimestamp(stored_s, UTC):%Y%m%d-%H%M%S}_1_web"
    definition = Definition(
        name=name, domain_id=1, domain_name="web", domain_xml="<domain/>",
        disks={"vda": f"{name}_vda.raw"}, version="1.0.0", date=int(stored_s),
        packager=Packager("repository"),
    )  # fmt: skip
    catalog = Catalog(StorageLocation.of(tmp_path))
    path = await catalog.write_definition(definition)
    package = tmp_path / "web" / f"{name}_vda.raw.map"
    package.touch()
    os.utime(package, (stored_s, stored_s))
    await amend_definition(path, {"pinned": True})
    (found,) = (await catalog.scan()).complete
    protection = protection_of(catalog.target, [found], timedelta(days=30))
    assert not protection.contradicts(found)
    assert protection.stored_s[found.path] == stored_s

"""The checks that judge without looking: each level, and its limits."""

import errno
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from virtbackup_async.catalog.scanning import FoundBackup, Scan
from virtbackup_async.config.patterns import parse_pattern
from virtbackup_async.config.schema import Config, Group, HostEntry
from virtbackup_async.engine.doctor import configuration, disks, history, host, target
from virtbackup_async.events import Level
from virtbackup_async.model.backup import (
    Definition,
    DiskRecord,
    ImageRecord,
    Packager,
    Verification,
)
from virtbackup_async.model.domain import HostVersions
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.model.target_file import TargetFile

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
CONFIG = Config(Path("/c.yml"))


@pytest.mark.parametrize(
    ("libvirt", "qemu", "levels"),
    [
        ((12, 8, 0), (11, 1, 0), [Level.OK, Level.OK]),
        ((10, 8, 0), (9, 0, 0), [Level.OK, Level.OK]),
        ((10, 7, 9), (9, 0, 0), [Level.OK, Level.OK, Level.INFO]),
        ((9, 1, 0), (7, 2, 0), [Level.OK, Level.OK, Level.INFO]),
        ((9, 0, 0), (7, 2, 0), [Level.OK, Level.OK, Level.INFO, Level.INFO]),
        ((6, 0, 0), (4, 2, 0), [Level.OK, Level.OK]),
        ((5, 10, 0), (4, 1, 9), [Level.WARNING, Level.WARNING]),
        ((5, 9, 9), (7, 2, 0), [Level.PROBLEM, Level.OK]),
    ],
)
def test_old_versions_say_what_they_cannot_do(libvirt, qemu, levels):
    found = list(host.check_versions(HostVersions("QEMU", libvirt, qemu)))
    assert [finding.level for finding in found] == levels
    assert all(finding.advice for finding in found if finding.level is not Level.OK)


def test_another_hypervisor_is_a_problem():
    (found,) = host.check_versions(HostVersions("TEST", (9, 0, 0), (2, 0, 0)))
    assert found.level is Level.PROBLEM


@pytest.mark.parametrize(
    ("answer", "levels"), [("yes", [Level.OK]), ("no", [Level.WARNING]), ("", []), ("n/a", [])]
)
def test_the_clock_is_judged_where_systemd_knows(answer, levels):
    assert [finding.level for finding in host.judge_clock(answer)] == levels


@pytest.mark.parametrize(
    ("pattern", "level"),
    [
        ("web", None),
        ("wbe", Level.PROBLEM),
        ("r:^w", None),
        ("r:eb", Level.WARNING),
        ("!gone", Level.INFO),
    ],
)
def test_a_pattern_that_matches_nothing_is_told(pattern, level):
    hosts = (HostEntry(parse_pattern("db")), HostEntry(parse_pattern(pattern)))
    found = list(configuration.check_group(Group("g", None, hosts=hosts), ("db", "web")))
    assert [finding.level for finding in found] == ([level] if level else []) + [Level.OK]
    assert level is not Level.PROBLEM or "did you mean 'web'" in found[0].message


def test_a_group_without_a_domain_is_told():
    (found,) = configuration.check_group(Group("g", None), ("db",))
    assert found.level is Level.WARNING


@pytest.mark.parametrize(
    ("free_bytes", "level"),
    [(99, Level.PROBLEM), (100, Level.WARNING), (199, Level.WARNING), (200, Level.OK)],
)
def test_room_in_the_target_is_held_against_the_last_run(free_bytes, level):
    assert target.judge_room("/t", 100, free_bytes).level is level


async def test_a_target_that_does_not_tell_its_room_is_a_problem(monkeypatch):
    def fail(path):
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(os, "statvfs", fail)
    image = ImageRecord("f", "/i", "raw", 100, 100, 100, "")
    definition = Definition(
        "n", 1, "web", "", {}, "1.0.0", 1, Packager("tar"), records={"vda": DiskRecord(image)}
    )
    scan = Scan((FoundBackup(definition, TargetFile.of(Path("/t/n.json"))),), (), ())
    group = Group("main", StorageLocation.of("/t"), hosts=(HostEntry(parse_pattern("web")),))
    (found,) = await target.check_room(StorageLocation.of("/t"), [group], scan)
    assert (found.level, found.check, found.subject) == (Level.PROBLEM, "room", "/t")
    assert "Input/output error" in found.message


@pytest.mark.parametrize(
    ("free_bytes", "level"),
    [
        (256 << 20 - 1, Level.PROBLEM),
        (256 << 20, Level.WARNING),
        (1 << 30 - 1, Level.WARNING),
        (1 << 30, Level.OK),
    ],
)
def test_room_for_the_overlay(free_bytes, level):
    assert disks.judge_room("web", "vda", Path("/i"), free_bytes).level is level


@pytest.mark.parametrize(
    ("age", "level", "said"),
    [
        (timedelta(days=8), Level.OK, "8 days old"),
        (timedelta(days=8, seconds=1), Level.WARNING, "8 days old"),
        (timedelta(seconds=-60), Level.OK, "0 minutes old"),
        (timedelta(seconds=-3600), Level.WARNING, "1 hour in the future"),
    ],
)
def test_the_age_of_the_last_backup(age, level, said):
    date = int((NOW - age).timestamp())
    definition = Definition("n", 1, "web", "", {}, "1.0.0", date, Packager("tar"))
    backups = [FoundBackup(definition, TargetFile.of(Path("/t/n.json")))]
    (found,) = judged(*backups)
    assert found.level is level
    assert said in found.message


def judged(*backups):
    damage = history.judge_damage("main", "web", backups, NOW)
    return [*damage, *history.judge_age("web", backups, NOW)]


def dated(days, *, ok=None):
    date = int((NOW - timedelta(days=days)).timestamp())
    verified = None if ok is None else Verification(date, ok=ok, digests=True, error="flipped")
    name = f"backup-{days}"
    definition = Definition(
        name, 1, "web", "", {}, "1.0.0", date, Packager("tar"), verified=verified
    )
    return FoundBackup(definition, TargetFile.of(Path(f"/t/{name}.json")))


def test_a_damaged_newest_backup_is_a_problem_that_names_the_newest_good_one():
    backups = [dated(4), dated(3, ok=True), dated(2, ok=False), dated(1, ok=False)]
    (found,) = judged(*backups)
    assert found.level is Level.PROBLEM
    assert "the newest backup, of " in found.message
    assert found.message.endswith("the newest good one is 3 days old")
    assert found.advice == "virtbackup restore --date backup-3 -- main web DIRECTORY"
    (found,) = judged(*backups[2:])
    assert found.message.endswith("NONE IS GOOD")
    assert found.level is Level.PROBLEM


def test_a_damaged_older_backup_is_a_warning():
    backups = [dated(4), dated(3, ok=False), dated(1)]
    damaged, age = judged(*backups)
    assert (damaged.level, age.level) == (Level.WARNING, Level.OK)
    assert "verify found 1 of its older backups damaged" in damaged.message


def test_backups_dated_in_the_future_do_not_hide_how_old_the_newest_is():
    future, age = judged(dated(9), dated(-1), dated(-2))
    assert (future.level, age.level) == (Level.WARNING, Level.WARNING)
    assert future.message.startswith("2 backups are dated in the future, /t/backup--2.json")
    assert age.message == "the last backup is 9 days old"


def test_groups_that_no_run_starts_by_itself_are_told():
    groups = {
        name: Group(name, StorageLocation.of("/t"), autostart_given=given)
        for name, given in (("a", True), ("b", False))
    }
    (found,) = configuration.check_autostart(Config(Path("/c.yml"), groups=groups))
    assert (found.level, found.subject) == (Level.WARNING, "group b")
    (found,) = configuration.check_autostart(Config(Path("/c.yml")))
    assert (found.level, found.message) == (Level.PROBLEM, "has no groups")


def test_what_is_damaged_is_told_of_a_domain_that_libvirt_does_not_know_any_more():
    """Its backups are all that is left of it; how old they are is no news."""
    group = Group("main", StorageLocation.of("/t"), hosts=(HostEntry(parse_pattern("web")),))
    backups = (dated(20), dated(10, ok=False))
    scan = Scan(backups, (), ())
    (found,) = history.check_history(CONFIG, group, scan, ("db",), NOW)
    assert found.level is Level.PROBLEM
    assert list(history.check_history(CONFIG, group, Scan(backups[:1], (), ()), ("db",), NOW)) == []
    (found,) = history.check_history(CONFIG, group, Scan(backups[:1], (), ()), ("web",), NOW)
    assert (found.level, found.message) == (Level.WARNING, "the last backup is 20 days old")

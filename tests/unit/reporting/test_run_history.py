"""What a run leaves in the histories of its targets."""

import os
import socket

import pytest
from msgspec.structs import replace

from fakes.recorded_run import done, failed, started, summary
from virtbackup_async.catalog.config_copy import file_name
from virtbackup_async.catalog.history import FILE, read_history
from virtbackup_async.config.loading import load_config
from virtbackup_async.config.schema import Config, Group
from virtbackup_async.config.target_config import config_of_target
from virtbackup_async.events import (
    BackupRemoved,
    CopyDone,
    CopyFailed,
    Phase,
    PhaseChanged,
    VerifyDone,
    VerifyFailed,
    VerifyStarted,
)
from virtbackup_async.model.run_record import DomainRun, Outcome
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.reporting.after_run import AfterRun
from virtbackup_async.reporting.past_runs import listed_run

GIB = 1 << 30
BEGIN = 1_800_000_000.0


class Watched:
    """A run of a command over two groups, each with a target, at a clock of its own."""

    def __init__(self, tmp_path, command="backup"):
        self.targets = {name: tmp_path / name for name in ("main", "other")}
        for target in self.targets.values():
            target.mkdir()
        groups = {
            name: Group(name, StorageLocation.of(target)) for name, target in self.targets.items()
        }
        self.now_s = BEGIN
        self.after_run = AfterRun(
            Config(path=tmp_path / "config.yml", groups=groups), command, now_s=lambda: self.now_s
        )
        self.seen, self.warnings = [], []
        self._emit = self.after_run.tap(self.seen.append)

    def emit(self, event, after_s=0.0):
        self.now_s += after_s
        self._emit(event)

    async def end(self, code=0):
        await self.after_run.conclude(summary(code), self.warnings.append)

    async def runs(self, name="main"):
        return (await read_history(StorageLocation.of(self.targets[name]))).runs


@pytest.fixture
def backup(tmp_path):
    return Watched(tmp_path)


async def test_a_domain_has_its_phases_and_what_was_moved(backup):
    for phase, after_s in [
        (Phase.PREPARING, 2.0),
        (Phase.FREEZING, 1.5),
        (Phase.COPYING, 0.25),
        (Phase.COMMITTING, 40.0),
        (Phase.COPYING, 1.0),
        (Phase.FINISHING, 5.0),
    ]:
        backup.emit(PhaseChanged("web", phase), after_s)
    backup.emit(started())
    backup.emit(done(), 0.25)
    await backup.end()
    (run,) = await backup.runs()
    assert (run.command, run.start, run.end, run.exit_code) == ("backup", BEGIN, BEGIN + 50, 0)
    assert run.domains == (
        DomainRun(
            "main", "web", Outcome.DONE, BEGIN + 2, BEGIN + 50,
            backup="20260701-030000_1_web",
            phases=(
                ("preparing", 0.0), ("freezing", 1.5), ("copying", 1.75), ("committing", 41.75),
                ("finishing", 47.75),
            ),
            method="snapshot", quiesced=True, frozen_ms=120,
            read_bytes=4 * GIB, data_bytes=4 * GIB, stored_bytes=GIB,
        ),
    )  # fmt: skip
    space = os.statvfs(backup.targets["main"])
    assert run.used_bytes + run.free_bytes == space.f_blocks * space.f_frsize


async def test_each_event_is_passed_on(backup):
    backup.emit(started())
    assert backup.seen == [started()]


async def test_a_failure_has_its_reason_and_begins_no_history(backup):
    backup.emit(started("db"))
    backup.emit(failed("db"), 3)
    await backup.end(3)
    assert list(backup.targets["main"].iterdir()) == []
    (backup.targets["main"] / FILE).touch()
    await backup.end(3)
    (run,) = await backup.runs()
    (db,) = run.domains
    assert (db.outcome, db.error, db.end - db.start) == ("failed", "the snapshot was refused", 3)
    assert (run.exit_code, run.error) == (3, summary(3).error)


async def test_a_target_has_its_own_groups_alone(backup):
    for target in backup.targets.values():
        (target / FILE).touch()
    backup.emit(done())
    await backup.end()
    assert [run.domains[0].domain for run in await backup.runs()] == ["web"]
    assert await backup.runs("other") == ()


async def test_a_run_that_came_to_no_domain_is_in_every_target(backup):
    for target in backup.targets.values():
        (target / FILE).touch()
    await backup.end(20)
    (one,), (other,) = await backup.runs(), await backup.runs("other")
    assert one.run_id == other.run_id
    assert (one.exit_code, one.domains) == (20, ())


async def test_two_runs_have_two_ids(tmp_path, backup):
    backup.emit(done())
    await backup.end()
    again = AfterRun(backup.after_run._config, "backup")
    again.tap(lambda _: None)(done())
    await again.conclude(replace(summary(0), run_id="another"), backup.warnings.append)
    assert len({run.run_id for run in await backup.runs()}) == 2


async def test_what_verify_read_is_recorded(tmp_path):
    verify = Watched(tmp_path, "verify")
    (verify.targets["main"] / FILE).touch()
    name, definition = "20260701-030000_1_web", "/b/web/x.json"
    verify.emit(VerifyStarted("main", "web", name, ("vda",)))
    verify.emit(VerifyDone("main", "web", name, definition, True, 4 * GIB, 20.0), 20)
    verify.emit(VerifyDone("main", "web", name, definition, True, 4 * GIB, 0.1, quick=True), 1)
    verify.emit(VerifyStarted("main", "db", name, ("vda",)))
    verify.emit(VerifyFailed("main", "db", name, "vda is damaged", 13), 2)
    await verify.end(13)
    (run,) = await verify.runs()
    assert [(d.domain, d.outcome, d.end - d.start, d.data_bytes) for d in run.domains] == [
        ("web", "verified", pytest.approx(20), 4 * GIB),
        ("web", "verified", pytest.approx(0.1), 0),
        ("db", "damaged", 2, 0),
    ]


async def test_removed_backups_are_counted(tmp_path):
    clean = Watched(tmp_path, "clean")
    (clean.targets["main"] / FILE).touch()
    for number in range(3):
        clean.emit(BackupRemoved("main", "web", f"b{number}", 7))
    await clean.end()
    assert [run.removed for run in await clean.runs()] == [3]


async def test_what_cannot_be_recorded_is_a_warning(backup):
    (backup.targets["main"] / FILE).mkdir()
    backup.emit(done())
    await backup.end()
    (warning,) = backup.warnings
    assert warning.message.startswith(
        f"the run is not in the history of {backup.targets['main']}: cannot write"
    )


async def test_a_target_that_is_missing_is_no_second_warning(backup):
    backup.targets["main"].rmdir()
    backup.emit(failed("db"))
    await backup.end(3)
    assert backup.warnings == []


async def test_a_clock_that_is_set_back_makes_no_run_end_before_it_began(backup):
    backup.emit(PhaseChanged("web", Phase.PREPARING))
    backup.emit(PhaseChanged("web", Phase.COPYING), -500)
    backup.emit(done(), -500)
    await backup.end()
    (run,) = await backup.runs()
    assert run.start == run.end
    assert run.domains[0].start == run.domains[0].end
    assert run.domains[0].phases == (("preparing", 0.0), ("copying", 0.0))


async def test_a_target_that_is_named_twice_has_the_domains_of_both_groups(tmp_path, backup):
    target, link = backup.targets["main"], tmp_path / "link"
    link.symlink_to(target)
    groups = {
        "main": Group("main", StorageLocation.of(target)),
        "second": Group("second", StorageLocation.of(link)),
    }
    after_run = AfterRun(Config(path=tmp_path, groups=groups), "backup")
    emit = after_run.tap(lambda _: None)
    emit(done())
    emit(done("db"))
    emit(replace(done("mail"), group="second"))
    await after_run.conclude(summary(0), backup.warnings.append)
    (run,) = await backup.runs()
    assert [domain.domain for domain in run.domains] == ["web", "db", "mail"]


async def test_a_backup_leaves_a_copy_of_the_configuration_in_its_target(tmp_path, backup):
    backup.emit(started())
    backup.emit(done())
    await backup.end()
    (copy,) = (tmp_path / "main").glob(".virtbackup-config.*.yml")
    assert not list((tmp_path / "other").glob(".virtbackup-config.*"))
    assert load_config(copy).groups.keys() == {"main", "other"}
    before = copy.stat()
    backup.emit(done())
    await backup.end()
    assert copy.stat().st_ino == before.st_ino, "the same is not written again"


@pytest.mark.parametrize("make", ["link", "directory", "other"])
async def test_the_copy_takes_the_place_of_what_is_no_copy(tmp_path, backup, make):
    copy = tmp_path / "main" / file_name(socket.gethostname())
    outside = tmp_path / "outside"
    outside.write_text("kept")
    if make == "link":
        copy.symlink_to(outside)
    elif make == "directory":
        copy.mkdir()
    else:
        copy.write_text("old")
    backup.emit(done())
    await backup.end()
    assert outside.read_text() == "kept"
    assert copy.is_dir() or copy.read_text().startswith("# The configuration of virtbackup")
    assert len(backup.warnings) == (make == "directory")


async def test_a_target_read_without_a_configuration_gets_no_copy(tmp_path):
    config = config_of_target(tmp_path)
    (tmp_path / file_name(socket.gethostname())).write_text("mine")
    after_run = AfterRun(config, "verify")
    after_run.tap(lambda _event: None)(done())
    warnings = []
    await after_run.conclude(summary(0), warnings.append)
    assert (tmp_path / file_name(socket.gethostname())).read_text() == "mine"
    assert warnings == []


@pytest.mark.parametrize("host", ["../../etc/x", "a\nb", "x" * 300, "", "host.example"])
def test_a_host_of_any_name_has_one_file(host):
    name = file_name(host)
    assert name.startswith(".virtbackup-config.")
    assert "/" not in name
    assert len(name) < 100


def copied(target, backup="b1"):
    sizes = {"data_bytes": 100, "read_bytes": 60, "skipped_bytes": 40, "stored_bytes": 50}
    return CopyDone("main", "web", backup, str(target), "/d.json", duration_s=3.0, **sizes)


def not_copied(target):
    return CopyFailed("main", "db", "b2", str(target), "it is full", 22)


async def test_copies_are_in_the_history_of_the_target_that_got_them(tmp_path):
    run = Watched(tmp_path, "copy")
    run.emit(copied(run.targets["other"]), 10)
    run.emit(not_copied(run.targets["other"]), 1)
    await run.end(3)
    (record,) = await run.runs("other")
    first, second = record.domains
    assert record.command == "copy"
    assert (first.domain, first.outcome, first.backup) == ("web", Outcome.COPIED, "b1")
    assert (first.start, first.end) == (BEGIN + 7, BEGIN + 10)
    assert (first.read_bytes, first.data_bytes, first.stored_bytes) == (60, 100, 50)
    assert (second.outcome, second.error) == (Outcome.NOT_COPIED, "it is full")
    listed = listed_run(record)
    assert (listed.done, listed.failed) == (("web",), ("db",))
    assert (listed.read_bytes, listed.stored_bytes) == (60, 50)
    # What is read may be read-only.
    assert await run.runs("main") == ()
    assert [*run.targets["main"].iterdir()] == []
    assert [path.name for path in run.targets["other"].iterdir()] == [FILE]


async def test_copies_after_a_backup_are_beside_what_the_backup_left(tmp_path):
    run = Watched(tmp_path)
    run.emit(started("web"))
    run.emit(done("web"), 60)
    run.emit(copied(run.targets["other"]), 10)
    await run.end()
    (main,) = await run.runs("main")
    (other,) = await run.runs("other")
    assert [one.outcome for one in main.domains] == [Outcome.DONE]
    assert [one.outcome for one in other.domains] == [Outcome.COPIED]
    assert main.run_id == other.run_id


async def test_a_run_that_copied_nothing_is_in_no_history(tmp_path):
    run = Watched(tmp_path, "copy")
    await run.end()
    assert await run.runs("main") == await run.runs("other") == ()
    run.emit(not_copied(run.targets["other"]))
    await run.end(3)
    assert [*run.targets["other"].iterdir()] == []  # nothing of it makes a history

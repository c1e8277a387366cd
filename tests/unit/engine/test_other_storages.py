"""Every command on a target that is no directory of this machine: in memory, in a bucket."""

from dataclasses import replace

import pytest
from msgspec.structs import replace as replace_run

from fakes.failing_storage import FailingStorage
from fakes.hostile_target import DATE, NAME, make_overlay
from fakes.other_site import IMAGE, KINDS, other_site, restored
from virtbackup_async.catalog import history
from virtbackup_async.catalog.history import RUNS, append_run, read_history
from virtbackup_async.catalog.host_notes import HostNotes
from virtbackup_async.catalog.scanning import Scan
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.engine.backup.preview import run_preview
from virtbackup_async.engine.backup.session import BackupRequest, run_backup
from virtbackup_async.engine.clean.clean import run_clean
from virtbackup_async.engine.clean.forget import ForgetRequest, run_forget
from virtbackup_async.engine.clean.request import CleanRequest
from virtbackup_async.engine.copy.selection import CopyRequest
from virtbackup_async.engine.copy.session import run_copy
from virtbackup_async.engine.doctor.examination import DoctorRequest, run_doctor
from virtbackup_async.engine.inventory.chosen_backup import (
    PinRequest,
    set_pinned,
)
from virtbackup_async.engine.inventory.listing import ListRequest, run_list
from virtbackup_async.engine.inventory.show import ShowRequest, run_show
from virtbackup_async.engine.inventory.stats import StatsRequest, run_stats
from virtbackup_async.engine.survey.survey import survey
from virtbackup_async.engine.verify.repair import RepairRequest, run_repair
from virtbackup_async.errors import ConfigError, StorageError
from virtbackup_async.events import (
    BackupFailed,
    BackupRemoved,
    PendingUndone,
    RepositoryChecked,
    RepositorySwept,
    Summary,
    TargetSpace,
)
from virtbackup_async.model import read_share
from virtbackup_async.model.backup import Packager, Pending, PendingDisk
from virtbackup_async.model.guest import Guest
from virtbackup_async.model.run_record import RunRecord
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.reporting.after_run import AfterRun
from virtbackup_async.repository import Kind
from virtbackup_async.repository.data import read_runs
from virtbackup_async.repository.storage.layout import list_packs, pack_file
from virtbackup_async.repository.storage.repository_file import STORAGES

RUN = RunRecord("0" * 32, "backup", "host", "1.0.0", 0.0, 1.0, 0)
SUMMARY = Summary(ok=True, done=("fake",), failed=(), exit_code=0)


@pytest.fixture(params=[*KINDS, "encrypted"])
def site(request, tmp_path, monkeypatch):
    return other_site(request, tmp_path, monkeypatch)


async def test_a_backup_is_complete_listed_shown_and_restored(site, tmp_path):
    done = await site.back_up()
    assert done.definition == f"{site.target_place}/{site.place}/{done.backup}.json"
    assert sorted(site.names()) == [f"{done.backup}.json", f"{done.backup}_vda.raw.map"]
    listing = await run_list(site.runtime(), ListRequest())
    assert [one.backup for one in listing.backups] == [done.backup]
    assert bool(site.of(TargetSpace)) == site.target_place.is_local
    shown = await run_show(site.runtime(), ShowRequest("fake"))
    assert (shown.target, shown.definition) == (str(site.target_place), done.definition)
    assert await restored(site, tmp_path / "restored") == IMAGE


async def test_nothing_is_left_on_the_host(site):
    await site.back_up()
    assert site.left_on_the_host() == []
    assert [path.name for path in (site.state / "heads").rglob("*.json")]


async def test_it_is_verified_and_the_result_is_kept(site):
    done = await site.back_up()
    for quick in (True, False):
        assert await site.verify(quick=quick) == [done.backup]
    (found,) = (await site.scan()).complete
    assert found.definition.verified.ok


async def test_elsewhere_a_share_is_read_unless_all_is_asked_for(site, monkeypatch):
    done = await site.back_up()
    monkeypatch.setattr(read_share, "LEAST_BYTES", 0)
    monkeypatch.setattr(read_runs, "RUN_BYTES", 1)
    assert await site.verify() == [done.backup]
    (checked,) = site.of(RepositoryChecked)
    (found,) = (await site.scan()).complete
    if site.target_place.is_local:
        assert checked.read_chunks == checked.chunks
    else:
        assert checked.read_chunks < checked.chunks
        assert found.definition.verified is None
        # A lost pack is found in any case: all of them are listed.
        assert await site.verify(read_data="all") == [done.backup]
        (found,) = (await site.scan()).complete
    assert found.definition.verified.ok
    for pack in list_packs(site.storage):
        site.storage.remove(pack_file(pack))
    assert await site.verify() == []


async def test_a_lost_map_is_damage(site):
    done = await site.back_up()
    site.storage.remove(f"{site.place}/{done.backup}_vda.raw.map")
    (problem,) = (await site.scan()).problems
    assert problem.message == f"{done.definition}: data missing: {done.backup}_vda.raw.map"


async def test_a_pin_keeps_it_and_without_one_it_is_forgotten(site):
    done = await site.back_up()
    await set_pinned(site.runtime(), PinRequest("all", "fake"))
    name = f"fake@{done.backup}"
    with pytest.raises(ConfigError, match="pinned"):
        await run_forget(site.runtime(), ForgetRequest([name], allow_newest=True))
    request = ForgetRequest([name], allow_newest=True, unpin=True)
    run = await run_forget(site.runtime(), request)
    assert [one.backup for one in run.removed] == [done.backup]
    assert site.names() == []


async def test_clean_removes_what_no_rule_keeps_and_prunes(site):
    rules = dict.fromkeys(("hourly", "daily", "weekly", "monthly", "yearly"), 0)
    first = await site.back_up(**rules)
    site.image.write_bytes(IMAGE[::-1])
    second = await site.back_up(**rules)
    run = await run_clean(site.runtime(), CleanRequest())
    assert [one.backup for one in run.removed] == [first.backup]
    assert [found.definition.name for found in (await site.scan()).complete] == [second.backup]
    (swept,) = site.of(RepositorySwept)
    assert swept.target == str(site.target_place)


async def test_it_is_measured_repaired_and_examined(site):
    done = await site.back_up()
    stats = await run_stats(site.runtime(), StatsRequest(each_backup=True))
    (repository,) = stats.repositories
    assert repository.target == str(site.target_place)
    repaired = await run_repair(site.runtime(), RepairRequest())
    assert [one.backup for one in repaired.good] == [done.backup]
    found = await run_doctor(site.runtime(), DoctorRequest())
    looked_at = "target_writable" if site.target_place.is_local else "target_listed"
    assert looked_at in {one.code for one in found}
    facts = await survey(site.runtime())
    (target,) = facts.targets
    assert (target.path, target.error) == (str(site.target_place), None)
    assert (target.free_bytes is not None) == site.target_place.is_local


async def test_a_run_is_in_the_history_and_its_configuration_beside_it(site):
    site.group["method"] = "snapshot"
    after = AfterRun(site.configure(), "backup")
    runtime = site.runtime()
    runtime.emit = after.tap(runtime.emit)
    await run_backup(runtime, BackupRequest())
    await after.conclude(SUMMARY, site.emit)
    assert site.warnings() == []
    (run,) = (await read_history(site.target_place)).runs
    assert run.command == "backup"
    (copy,) = [n for n in site.storage.names("", {Kind.FILE}) if n.startswith(".virtbackup-config")]
    assert str(site.target_place).encode() in site.storage.read(copy, 1 << 20)


async def test_many_runs_are_joined_and_none_is_lost_or_doubled(site, monkeypatch):
    most, number_of_runs = 4, 11
    monkeypatch.setattr(history, "RUN_FILES_MAX", most)
    for number in range(number_of_runs):
        run = replace_run(RUN, run_id=f"{number:032x}", start=number, end=number + 1)
        await append_run(site.target_place, run, create=True)
    assert len(site.storage.names(RUNS, {Kind.FILE})) <= most
    found = await read_history(site.target_place)
    assert [run.start for run in found.runs] == list(range(number_of_runs))
    assert found.damaged == 0


async def test_no_history_is_begun_by_a_run_without_backups(site):
    await append_run(site.target_place, RUN, create=False)
    assert (await read_history(site.target_place)).runs == ()


async def test_backups_are_copied_out_of_it_and_into_it(site, tmp_path):
    done = await site.back_up()
    there = tmp_path / "there"
    there.mkdir()
    run = await run_copy(site.runtime(), CopyRequest(str(there), packager="directory"))
    assert [one.backup for one in run.done] == [done.backup]
    assert (there / "fake" / f"{done.backup}_vda.raw").read_bytes() == IMAGE
    site.storage.remove(f"{site.place}/{done.backup}.json")
    site.storage.remove(f"{site.place}/{done.backup}_vda.raw.map")
    config = site.configure()
    back = {"back": replace(config.groups["all"], name="back", target=StorageLocation.of(there))}
    both = replace(config, groups={**config.groups, **back})
    run = await run_copy(site.runtime(both), CopyRequest("all", groups=("back",)))
    assert [one.backup for one in run.done] == [done.backup]
    assert await restored(site, tmp_path / "restored") == IMAGE
    assert site.left_on_the_host() == []


async def test_a_packager_with_files_of_its_own_is_refused(site):
    with pytest.raises(ConfigError, match="tar packages need a directory"):
        await run_copy(site.runtime(), CopyRequest(str(site.target_place), packager="tar"))


# Deaths.


def use(monkeypatch, storage):
    monkeypatch.setitem(STORAGES, "test", lambda _at: storage)


@pytest.mark.parametrize("after", [False, True])
async def test_a_crash_in_a_removal_leaves_a_note_and_the_next_clean_ends_it(
    site, monkeypatch, after
):
    """An object store has no rename: the definition and its note may both be there."""
    done = await site.back_up()
    (found,) = (await site.scan()).complete
    data = site.storage.read(f"{site.place}/{done.backup}.json", 1 << 20)
    site.storage.put_new(f"{site.place}/{done.backup}.json.removed", data)
    if after:
        site.storage.remove(f"{site.place}/{done.backup}.json")
    scan = await site.scan()
    assert (scan.complete, [one.definition for one in scan.removed]) == ((), [found.definition])
    await run_clean(site.runtime(), CleanRequest())
    assert [one.backup for one in site.of(BackupRemoved)] == [done.backup]
    assert site.names() == []


async def test_a_killed_backup_is_found_by_its_host_and_undone(site):
    """Its pending file is on this host: no other could undo it."""
    overlay = make_overlay(site.image.with_name("vda.raw.vbk-0a0b0c0d"), site.image)
    site.domain.live = site.domain.persistent = {"vda": overlay}
    catalog = Catalog(site.target_place, site.state)
    disk = PendingDisk(str(site.image), "raw", str(overlay), f"{NAME}_vda.raw")
    pending = Pending(
        NAME, 3, "fake", "<domain/>", {"vda": disk}, "1.0.0", DATE, Packager("repository"),
        site.domain.uuid,
    )  # fmt: skip
    notes = HostNotes(site.state)
    await notes.create(pending, catalog.pending_path(pending), site.target_place)
    path = await catalog.create_pending(pending)
    site.storage.put_new(f"{site.place}/{NAME}_vda.raw.map", b"begun")
    assert path.local.is_relative_to(site.state / "pending")
    assert [one.path for one in (await site.scan()).pending] == [path]
    await run_clean(site.runtime(), CleanRequest())
    assert [one.backup for one in site.of(PendingUndone)] == [NAME]
    assert site.domain.live == {"vda": site.image}
    assert not path.local.exists()
    assert (await notes.scan()).notes == ()
    assert site.names() == []


async def test_a_note_alone_leads_to_its_target(site):
    """The pending file was removed; the note still says where the backup was going."""
    done = await site.back_up()
    before = site.names()
    overlay = make_overlay(site.image.with_name("vda.raw.vbk-0a0b0c0d"), site.image)
    site.domain.live = site.domain.persistent = {"vda": overlay}
    catalog = Catalog(site.target_place, site.state)
    disk = PendingDisk(str(site.image), "raw", str(overlay), f"{NAME}_vda.raw")
    pending = Pending(
        NAME, 3, "fake", "<domain/>", {"vda": disk}, "1.0.0", DATE, Packager("repository"),
        site.domain.uuid,
    )  # fmt: skip
    notes = HostNotes(site.state)
    await notes.create(pending, catalog.pending_path(pending), site.target_place)
    (note,) = (await notes.scan()).notes
    assert note.target == site.target_place
    map_of_another = site.storage.read(f"{site.place}/{done.backup}_vda.raw.map", 1 << 20)
    site.storage.put_new(f"{site.place}/{NAME}_vda.raw.map", map_of_another)
    await run_clean(site.runtime(), CleanRequest())
    assert site.domain.live == {"vda": site.image}
    assert (await notes.scan()).notes == ()
    assert site.names() == before


of_buckets = pytest.mark.parametrize("site", KINDS, indirect=True)


@of_buckets
async def test_a_backup_that_fails_leaves_nothing(site, monkeypatch):
    await site.back_up()
    before = site.names()

    def fail(verb):
        if verb.startswith("publish"):
            raise StorageError("the store is gone")

    failing = FailingStorage(site.storage, after=fail)
    use(monkeypatch, failing)
    await run_backup(site.runtime(), BackupRequest())
    (failed,) = site.of(BackupFailed)
    assert "the store is gone" in failed.error
    assert site.domain.live == {"vda": site.image}
    assert site.names() == before
    assert site.left_on_the_host() == []


@of_buckets
async def test_a_target_that_cannot_be_reached_is_one_line(site, monkeypatch):
    def refuse(_at):
        raise StorageError("cannot reach the store")

    monkeypatch.setitem(STORAGES, "test", refuse)
    with pytest.raises(StorageError, match="cannot reach the store"):
        await run_list(site.runtime(), ListRequest())
    await run_backup(site.runtime(), BackupRequest())
    (failed,) = site.of(BackupFailed)
    assert "cannot reach the store" in failed.error


async def test_without_a_state_directory_nothing_is_begun(site):
    with pytest.raises(StorageError, match="no directory is known for the pending files"):
        Catalog(site.target_place).pending_directories(Guest("fake"))


@pytest.mark.parametrize("site", ["encrypted"], indirect=True)
async def test_an_encrypted_target_is_empty_before_its_first_backup(site, tmp_path):
    (tmp_path / "new").mkdir()
    site.target_place = replace_run(site.target_place, path=str(tmp_path / "new"))
    assert await site.scan() == Scan((), (), ())
    assert (await read_history(site.target_place)).runs == ()
    await append_run(site.target_place, RUN, create=False)
    assert await run_list(site.runtime(), ListRequest())
    assert list((tmp_path / "new").iterdir()) == []
    done = await site.back_up()
    assert [found.definition.name for found in (await site.scan()).complete] == [done.backup]


@pytest.mark.parametrize("site", ["memory"], indirect=True)
async def test_a_dry_run_knows_an_encrypted_target_before_its_first_backup(site, tmp_path):
    site.target_place = replace_run(site.target_place, key_file=tmp_path / "new.key")
    previewed = await run_preview(site.runtime(), BackupRequest(("all",)))
    assert previewed.failed == ()
    assert [planned.disk for planned in previewed.disks] == ["vda"]
    assert not (tmp_path / "new.key").exists()
    assert site.storage.names("", frozenset(Kind)) == []


@pytest.mark.parametrize("site", ["encrypted"], indirect=True)
async def test_an_encrypted_target_shows_no_name(site, tmp_path):
    await site.back_up()
    after = AfterRun(site.configure(), "backup")
    await after.conclude(SUMMARY, site.emit)
    names = [path.name for path in (tmp_path / "sealed").rglob("*")]
    assert not [name for name in names if "fake" in name or name.endswith(".json")]
    texts = [path.read_bytes() for path in (tmp_path / "sealed").rglob("*") if path.is_file()]
    assert not [text for text in texts if b"fake" in text or b"<domain" in text]

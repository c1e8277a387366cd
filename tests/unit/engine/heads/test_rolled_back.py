"""Targets that were rolled back, exchanged or continued elsewhere: which command says what."""

import json
import os
import shutil

import pytest

from fakes.hypervisor import DescribedDomain
from fakes.rolling_site import EXCHANGED, FORKED, OLDER, RollingSite
from virtbackup_async.catalog.heads import TargetMemory
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.engine.backup.session import BackupRequest, run_backup
from virtbackup_async.engine.copy.selection import CopyRequest
from virtbackup_async.engine.copy.session import run_copy
from virtbackup_async.engine.inventory.chosen_backup import (
    PinRequest,
    set_pinned,
)
from virtbackup_async.engine.inventory.listing import ListRequest, run_list
from virtbackup_async.engine.survey.survey import survey
from virtbackup_async.errors import DefinitionError, NotFoundError, StorageError
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.reporting.health import health_of
from virtbackup_async.reporting.overview.build import build_overview


@pytest.fixture(params=["directory", "repository"])
def site(request, tmp_path):
    return RollingSite(tmp_path, request.param)


async def rolled_back(site, then=2):
    """A site whose target is two backups older than it was."""
    await site.make(2)
    saved = site.save()
    await site.make(then)
    site.bring_back(saved)
    return saved


async def test_each_definition_names_the_one_before(site):
    done = await site.make(3)
    first, second, third = site.definitions()
    assert [one.sequence for one in (first, second, third)] == [1, 2, 3]
    assert first.previous is None
    assert (second.previous, third.previous) == (first.hash, second.hash)
    assert (done.sequence, done.definition_hash) == (3, third.hash)
    assert await site.doctor() == {"heads_good": "ok"}
    (memory,) = site.heads()
    assert memory.stat().st_mode & 0o777 == 0o600
    assert memory.parent.stat().st_mode & 0o777 == 0o700


async def test_every_command_says_that_the_target_is_older(site, tmp_path):
    await rolled_back(site)
    assert await site.doctor() == {OLDER: "problem"}
    assert await site.listed() == [OLDER]
    found = await site.find()
    assert site.codes() == [OLDER]
    assert found.definition.sequence == 2
    await site.clean()
    assert site.codes() == [OLDER]
    overview = build_overview(await survey(site.runtime()))
    assert "OLDER" in " ".join(overview.verdict.more)
    assert "changed the backups of fake" in overview.actions[0].text
    health = health_of(overview)
    assert (health.status, health.exit_code) == ("critical", 2)
    assert "IS OLDER THAN IT WAS" in health.message


async def test_the_next_backup_says_it_and_does_not_hide_it(site):
    await rolled_back(site)
    done = await site.make()
    assert site.codes() == [OLDER]
    assert done.sequence == 5
    assert await site.doctor() == {OLDER: "problem"}
    await site.make()
    assert await site.doctor() == {OLDER: "problem"}


async def test_all_backups_gone_is_the_gravest_rollback(site):
    await site.make(2)
    shutil.rmtree(site.target / "fake")
    assert await site.doctor() == {OLDER: "problem"}
    assert await site.listed() == [OLDER]
    overview = build_overview(await survey(site.runtime()))
    assert "IS OLDER" in health_of(overview).message


async def test_a_rollback_that_an_admin_knows_of_is_accepted(site):
    await rolled_back(site)
    (would,) = await site.accept("fake", dry_run=True)
    assert would.dry_run
    assert await site.doctor() == {OLDER: "problem"}
    (done,) = await site.accept("all")
    assert (done.sequence, done.domain) == (2, "fake")
    assert "IS OLDER" in done.contradictions[0]
    assert await site.doctor() == {"heads_good": "ok"}
    made = await site.make()
    # The numbers of the lost ones are in older notifications: they are not used again.
    assert (made.sequence, site.codes()) == (5, [])


async def test_even_a_domain_without_backups_is_accepted(site):
    await site.make()
    shutil.rmtree(site.target / "fake")
    (done,) = await site.accept("fake")
    assert done.sequence is None
    assert await site.doctor() == {}
    with pytest.raises(NotFoundError):
        await site.accept("nobody")


async def test_a_changed_definition_is_not_restored_unless_it_is_trusted(site):
    await site.make(2)
    older, _ = site.paths()
    site.change(older, domain_xml="<domain><name>mine</name></domain>")
    assert await site.doctor() == {EXCHANGED: "problem", FORKED: "problem"}
    assert await site.listed() == [EXCHANGED, FORKED]
    await site.find()
    with pytest.raises(DefinitionError, match="another definition"):
        await site.find(older.stem)
    assert (await site.find(older.stem, trusted=True)).definition.name == older.stem
    await site.make()
    assert await site.doctor() == {EXCHANGED: "problem", FORKED: "problem"}


async def test_a_definition_without_its_number_is_another(site):
    await site.make()
    (path,) = site.paths()
    raw = json.loads(path.read_bytes())
    path.write_text(json.dumps({k: v for k, v in raw.items() if k not in ("sequence", "previous")}))
    site.change(path)
    assert await site.doctor() == {EXCHANGED: "problem"} | await site.doctor()
    assert await site.listed() == [EXCHANGED]


async def test_verify_pin_and_unpin_change_no_hash(site):
    await site.make(2)
    before = [one.hash for one in site.definitions()]
    await site.verify(now=site.now())
    for pinned in (True, False):
        request = PinRequest("all", "fake", pinned=pinned)
        await set_pinned(site.runtime(), request)
    assert [one.hash for one in site.definitions()] == before
    assert site.definitions()[-1].verified.ok
    assert await site.doctor() == {"heads_good": "ok"}
    await site.make()
    assert site.codes() == []


async def test_clean_and_forget_are_no_rollback(site):
    await site.make(4)
    await site.clean(2)
    assert len(site.paths()) == 2
    assert await site.doctor() == {"heads_good": "ok"}
    await site.forget_newest()
    assert await site.doctor() == {"heads_good": "ok"}
    assert site.codes() == []
    done = await site.make()
    assert (done.sequence, site.codes()) == (5, [])
    assert site.definitions()[-1].previous == site.definitions()[0].hash
    for _ in range(2):
        await site.forget_newest()
    assert site.heads() == []
    assert await site.doctor() == {}


async def test_a_backup_that_another_host_forgot_is_noticed_here(site, monkeypatch, tmp_path):
    await site.make(2)
    own = site.state()
    monkeypatch.setenv("VIRTBACKUP_STATE_DIRECTORY", str(tmp_path / "other-host"))
    await site.forget_newest()
    assert site.codes() == []
    monkeypatch.setenv("VIRTBACKUP_STATE_DIRECTORY", str(own))
    assert await site.doctor() == {OLDER: "problem"}


async def test_a_guest_that_migrates_there_and_back_has_one_chain(site, monkeypatch, tmp_path):
    await site.make(2)
    own = site.state()
    monkeypatch.setenv("VIRTBACKUP_STATE_DIRECTORY", str(tmp_path / "other-host"))
    assert await site.doctor() == {"heads_unknown": "info"}
    assert (await site.make()).sequence == 3
    await site.clean(1)
    monkeypatch.setenv("VIRTBACKUP_STATE_DIRECTORY", str(own))
    assert await site.doctor() == {"heads_good": "ok"}
    assert (await site.make()).sequence == 4
    assert site.codes() == []


async def test_another_host_that_goes_on_from_an_older_state_is_noticed(
    site, monkeypatch, tmp_path
):
    await rolled_back(site)
    own = site.state()
    monkeypatch.setenv("VIRTBACKUP_STATE_DIRECTORY", str(tmp_path / "other-host"))
    await site.make(4)
    assert await site.doctor() == {"heads_good": "ok"}
    monkeypatch.setenv("VIRTBACKUP_STATE_DIRECTORY", str(own))
    assert await site.doctor() == {FORKED: "problem"}


async def test_an_older_memory_is_no_alarm(site):
    await site.make()
    (memory,) = site.heads()
    older = memory.read_bytes()
    await site.make(2)
    memory.write_bytes(older)  # a crash before it was written, or a restored disk of the host
    assert await site.doctor() == {"heads_good": "ok"}
    assert (await site.make()).sequence == 4
    assert site.codes() == []


async def test_a_lost_memory_is_said_and_grows_again(site):
    await site.make(2)
    shutil.rmtree(site.state() / "heads")
    assert await site.doctor() == {"heads_unknown": "info"}
    assert await site.listed() == []
    assert (await site.make()).sequence == 3
    assert await site.doctor() == {"heads_good": "ok"}
    saved = site.save()
    await site.make()
    site.bring_back(saved)
    assert await site.doctor() == {OLDER: "problem"}


async def test_a_damaged_memory_is_said_and_not_replaced(site):
    await site.make()
    (memory,) = site.heads()
    memory.write_text("{")
    assert await site.doctor() == {"heads_unreadable": "warning"}
    assert (await site.make()).sequence == 2
    assert site.codes() == ["heads_unreadable"]
    assert memory.read_text() == "{"
    await site.accept("fake")
    assert await site.doctor() == {"heads_good": "ok"}


async def test_a_memory_that_others_could_have_written_is_not_believed(site):
    await site.make()
    site.heads()[0].parent.chmod(0o777)
    assert await site.doctor() == {"heads_unreadable": "warning"}
    assert (await site.make()).sequence == 2
    assert site.codes() == ["heads_unreadable"]


async def test_a_full_state_directory_costs_the_memory_and_no_backup(site, monkeypatch):
    await site.make()
    written = TargetMemory.write

    def full(self, remembered):
        raise StorageError("cannot write heads: No space left on device")

    monkeypatch.setattr(TargetMemory, "write", full)
    assert (await site.make()).sequence == 2
    assert site.codes() == ["heads_unreadable"]
    monkeypatch.setattr(TargetMemory, "write", written)
    assert await site.doctor() == {"heads_good": "ok"}
    assert (await site.make()).sequence == 3


async def test_each_guest_has_a_chain_of_its_own_whichever_group_backs_it_up(tmp_path):
    domains = {name: tmp_path / f"{name}.raw" for name in ("web", "db")}
    for image in domains.values():
        image.write_bytes(os.urandom(65536))
    site = RollingSite(tmp_path)
    site.domains = tuple(DescribedDomain({"vda": image}) for image in domains.values())
    for number, (name, domain) in enumerate(zip(domains, site.domains, strict=True), 1):
        domain.name, domain.uuid = name, f"{domain.uuid[:-1]}{number}"
    config = site.configure(
        all={"hosts": ["r:.*"], "method": "snapshot", **site.group},
        again={"hosts": ["web"], "method": "snapshot", **site.group, "packager": "tar"},
    )
    for _ in range(2):
        site.day += 1
        await run_backup(site.runtime(config), BackupRequest(("all",)))
        site.day += 1
        await run_backup(site.runtime(config), BackupRequest(("again",)))
    scan = await Catalog(StorageLocation.of(site.target)).scan()
    found = [(one.definition.domain_name, one.definition.sequence) for one in scan.complete]
    assert sorted(found) == [("db", 1), ("db", 2), *(("web", number) for number in range(1, 5))]
    assert await site.doctor() == {"heads_good": "ok"}
    shutil.rmtree(site.target / "db")
    await run_list(site.runtime(config), ListRequest(("web",)))
    assert site.codes() == []


async def test_backups_of_versions_without_numbers_are_no_contradiction(site):
    await site.store(domain="fake")
    assert await site.doctor() == {}
    done = await site.make()
    assert (done.sequence, site.codes()) == (1, [])
    assert site.definitions()[-1].previous is None
    assert await site.doctor() == {"heads_good": "ok"}


async def test_a_copy_has_the_numbers_of_its_own_target(site):
    await site.make(2)
    other = site.root / "other"
    other.mkdir()
    for _ in range(2):
        run = await run_copy(site.runtime(), CopyRequest(str(other), (), wait_s=60))
        assert run.ok
        await site.make()
    scan = await Catalog(StorageLocation.of(other)).scan()
    copies = [found.definition for found in scan.complete]
    assert [one.sequence for one in copies] == [1, 2, 3]
    assert copies[2].previous == copies[1].hash
    assert [one.sequence for one in run.done] == [3]
    assert run.done[0].definition_hash == copies[2].hash
    assert len(site.heads()) == 2


async def test_disks_that_are_used_in_turn_are_told_apart_by_their_repositories(tmp_path):
    site = RollingSite(tmp_path, "repository")
    await site.make(2)
    first = site.save()
    shutil.rmtree(site.target)
    site.target.mkdir()
    assert await site.doctor() == {"heads_of_another": "warning"}
    assert await site.listed() == ["heads_of_another"]
    shutil.copytree(first / "fake", site.target / "fake")
    assert (await site.make()).sequence == 3
    site.bring_back(first)
    assert await site.doctor() == {"heads_good": "ok"}


async def test_another_repository_than_the_one_that_was_seen_is_said(tmp_path, monkeypatch):
    site = RollingSite(tmp_path, "repository")
    await site.make()
    monkeypatch.setenv("VIRTBACKUP_STATE_DIRECTORY", str(tmp_path / "other-host"))
    shutil.rmtree(site.target)
    site.target.mkdir()
    await site.make()
    monkeypatch.setenv("VIRTBACKUP_STATE_DIRECTORY", str(tmp_path / "state-of-the-host"))
    assert await site.doctor() == {"heads_of_another": "warning"}

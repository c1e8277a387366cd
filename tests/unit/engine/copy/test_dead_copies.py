"""Killed copies: the next copy undoes them, and so does clean; a living one is left alone."""

import pytest

from fakes.copy_site import CopySite
from fakes.hypervisor import DescribedDomain
from fakes.site import DIRECTORY, NOW
from virtbackup_async.catalog import pending_file
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.engine.backup.session import BackupRequest, run_backup
from virtbackup_async.engine.clean.clean import run_clean
from virtbackup_async.engine.clean.request import CleanRequest
from virtbackup_async.engine.copy.definition import copy_pending, plan_copy
from virtbackup_async.engine.copy.destination import Destination
from virtbackup_async.engine.doctor.examination import DoctorRequest, run_doctor
from virtbackup_async.engine.locks import hold_domain
from virtbackup_async.engine.undo.find_domain import copies_lock_name
from virtbackup_async.errors import DefinitionError
from virtbackup_async.events import BackupDone, Finding, PendingLeft, PendingUndone, Warned
from virtbackup_async.model.storage_location import StorageLocation


@pytest.fixture
def site(tmp_path):
    return CopySite(tmp_path)


async def killed_copy(site, stored):
    """Leave what a copy leaves that is killed in the middle of its first image."""
    destination = Destination(Catalog(StorageLocation.of(site.other)), DIRECTORY)
    pending = copy_pending(plan_copy(stored.definition), destination, str(site.target))
    path = (await Catalog(StorageLocation.of(site.other)).create_pending(pending)).local
    (path.parent / stored.file).write_bytes(b"half")
    return path


def clean_of_other(site):
    away = {"target": str(site.other), "packager": "directory", "hosts": ["r:.*"]}
    return site.configure(away=away)


async def test_the_next_copy_undoes_it_and_begins_again(site):
    stored = await site.store()
    await killed_copy(site, stored)
    assert await site.listed() == []
    run = await site.copy(packager="directory")
    assert run.ok
    assert any("was killed" in event.message for event in site.of(Warned))
    assert await site.listed() == [stored.name]
    assert site.left_over() == sorted([stored.path.name, stored.file])
    assert await site.content(site.copied(stored)) == (site.root / "image.raw").read_bytes()


async def test_clean_undoes_it(site):
    stored = await site.store()
    await killed_copy(site, stored)
    await run_clean(site.runtime(clean_of_other(site), now=lambda: NOW), CleanRequest())
    assert [event.backup for event in site.of(PendingUndone)] == [stored.name]
    assert site.left_over() == []


async def test_clean_leaves_a_living_one_alone(site):
    stored = await site.store()
    path = await killed_copy(site, stored)
    runtime = site.runtime(clean_of_other(site), now=lambda: NOW)
    lock = copies_lock_name(stored.definition)
    async with hold_domain(runtime.host.images, "web", lock, "copy"):
        await run_clean(runtime, CleanRequest())
    assert [event.in_use for event in site.of(PendingLeft)] == [True]
    assert path.exists()


async def test_a_copy_that_is_complete_stays(site):
    stored = await site.store()
    await site.copy(packager="directory")
    destination = Destination(Catalog(StorageLocation.of(site.other)), DIRECTORY)
    pending = copy_pending(plan_copy(stored.definition), destination, str(site.target))
    path = site.other / "web" / f"{stored.name}.json.pending"
    path.write_bytes(pending_file.dumps(pending))
    await run_clean(site.runtime(clean_of_other(site), now=lambda: NOW), CleanRequest())
    assert not path.exists()
    assert await site.listed() == [stored.name]


async def test_a_backup_into_the_same_target_leaves_copies_alone(site):
    image = site.root / "vda.raw"
    image.write_bytes(b"x" * 65536)
    site.domains = (DescribedDomain({"vda": image}, active=False),)
    stored = await site.store(domain="fake")
    path = await killed_copy(site, stored)
    away = {"target": str(site.other), "packager": "directory", "hosts": ["fake"]}
    config = site.configure(away={**away, "autostart": True})
    await run_backup(site.runtime(config), BackupRequest())
    assert site.of(BackupDone)
    assert path.exists()


async def test_a_copy_that_names_anything_of_a_domain_is_refused(site):
    stored = await site.store()
    path = await killed_copy(site, stored)
    text = path.read_text().replace('"snapshot": null', '"snapshot": "/i/a.raw.vbk-5e5f7a1d.snap"')
    with pytest.raises(DefinitionError):
        pending_file.loads(text.encode(), path)


@pytest.mark.parametrize("is_alive", [True, False])
async def test_doctor_tells_a_living_copy_from_a_killed_one(site, is_alive):
    stored = await site.store()
    await killed_copy(site, stored)
    runtime = site.runtime(clean_of_other(site))
    lock = copies_lock_name(stored.definition) if is_alive else "another"
    async with hold_domain(runtime.host.images, "web", lock, "copy"):
        await run_doctor(runtime, DoctorRequest())
    codes = [finding.code for finding in site.of(Finding)]
    assert ("backup_running" in codes, "backup_killed" in codes) == (is_alive, not is_alive)


async def test_doctor_looks_at_the_targets_of_copies(site):
    group = {"hosts": ["r:.*"], "packager": "directory"}
    missing = str(site.root / "missing")
    config = site.configure(all={**group, "copies": [str(site.other), missing]})
    await run_doctor(site.runtime(config), DoctorRequest())
    found = {(finding.subject, finding.code) for finding in site.of(Finding)}
    assert {
        (str(site.other), "copies_beside_backups"),
        (str(site.other), "target_writable"),
        (missing, "target_missing"),
    } <= found

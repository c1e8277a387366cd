"""One domain's backup that others disturb: what is tried again, what is left, what is warned of."""

from uuid import uuid4

import pytest

from fakes.hypervisor import DescribedDomain
from fakes.site import Site
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.engine.backup.domain import MAX_TRIES, back_up_domain
from virtbackup_async.engine.plan import plan_backups
from virtbackup_async.errors import (
    BlockJobError,
    ChangedMeanwhileError,
    DiskNotFoundError,
    DomainGoneError,
    DomainNotFoundError,
    HypervisorError,
    RollbackError,
)
from virtbackup_async.events import BackupStarted, DiskSkipped, Phase, PhaseChanged
from virtbackup_async.model.guest import Guest
from virtbackup_async.model.storage_location import StorageLocation


def failing(error):
    def act():
        raise error

    return act


class DisturbedSite(Site):
    """A domain with two disks, whose backup raises its error."""

    def __init__(self, path):
        self.images = {dev: path / f"{dev}.raw" for dev in ("vda", "vdb")}
        for image in self.images.values():
            image.write_bytes(b"x" * 65536)
        domain = DescribedDomain(self.images)
        domain.uuid = str(uuid4())
        super().__init__(path, domain)

    async def back_up(self, **group):
        self.group |= group
        runtime = self.runtime()
        (planned,) = plan_backups(runtime.config, ["all"], ["fake"]).backups
        return await back_up_domain(runtime, planned)

    def is_on_its_images(self):
        return self.domain.live == self.domain.persistent == self.images


@pytest.fixture
def site(tmp_path):
    return DisturbedSite(tmp_path)


def copying(event):
    return isinstance(event, PhaseChanged) and event.phase is Phase.COPYING and not event.disk


async def test_a_complete_backup_leaves_nothing_but_itself(site):
    done = await site.back_up()
    (found,) = (await Catalog(StorageLocation.of(site.target)).scan_guest(Guest("fake"))).complete
    assert found.definition.name == done.backup
    assert found.definition.method == "snapshot"
    assert found.definition.state == "running"
    assert found.definition.skipped["vdz"]
    assert len(site.left()) == 1 + len(site.images)
    assert site.is_on_its_images()


async def test_a_domain_that_is_shut_off_during_its_copy_still_gets_a_complete_backup(site):
    site.on[copying] = site.domain.shut_off
    done = await site.back_up()
    (found,) = (await Catalog(StorageLocation.of(site.target)).scan_guest(Guest("fake"))).complete
    assert found.definition.name == done.backup
    assert site.domain.persistent == site.images


async def test_an_image_that_changes_each_time_is_given_up_after_some_tries(site):
    site.domain.shut_off()

    def change():
        with site.images["vda"].open("ab") as image:
            image.write(b"y")
        site.on[copying] = change

    site.on[copying] = change
    with pytest.raises(ChangedMeanwhileError, match=r"vda\.raw changed") as raised:
        await site.back_up()
    assert raised.value.disk == "vda"
    begun = [event for event in site.events if isinstance(event, BackupStarted)]
    assert len(begun) == MAX_TRIES
    assert sum("starting over" in message for message in site.warnings()) == MAX_TRIES - 1
    assert site.left() == []


async def test_a_snapshot_of_a_domain_that_was_shut_off_is_tried_again_as_a_copy(site):
    def stop():
        site.domain.shut_off()
        raise DomainGoneError("fake: not running")

    site.domain.before["snapshot"] = [stop]
    await site.back_up()
    assert "it was shut off" in site.warnings()[0]
    methods = [event.method for event in site.events if isinstance(event, BackupStarted)]
    assert methods == ["snapshot", "copy"]


async def test_a_domain_that_is_gone_is_not_tried_again(site):
    def vanish():
        site.domain.before["info"] = [failing(DomainNotFoundError("none")) for _ in range(2)]
        raise HypervisorError("fake: it failed")

    site.domain.before["snapshot"] = [vanish]
    with pytest.raises((DomainGoneError, DomainNotFoundError)):
        await site.back_up()
    assert site.left() == []


async def test_a_failed_backup_leaves_nothing(site):
    site.domain.before["snapshot"] = [failing(HypervisorError("fake: refused"))]
    with pytest.raises(HypervisorError, match="refused"):
        await site.back_up()
    assert site.left() == []
    assert site.is_on_its_images()


async def test_a_disk_that_stays_on_its_overlay_keeps_the_pending_file(site):
    site.domain.before["commit"] = [failing(BlockJobError("no space")) for _ in range(9)]
    with pytest.raises(RollbackError, match="still on an overlay"):
        await site.back_up()
    assert [name.endswith(".json.pending") for name in site.left()] == [True]


async def test_a_broken_disk_is_missing_and_the_others_are_backed_up(site):
    site.images["vdb"].unlink()
    done = await site.back_up()
    assert done.missing == ("vdb",)
    skipped = [event.disk for event in site.events if isinstance(event, DiskSkipped)]
    assert set(skipped) == {"vdb", "vdz"}
    assert any(message.startswith("vdb will not be in the backup") for message in site.warnings())


async def test_without_any_disk_there_is_no_backup(site):
    with pytest.raises(DiskNotFoundError):
        await site.back_up(hosts=[{"host": "fake", "disks": ["sda"]}])
    assert site.left() == []


async def test_a_saved_domain_is_no_quiesced_backup_and_says_so(site):
    site.domain.shut_off()
    site.domain.saved = dict(site.images)
    await site.back_up()
    (found,) = (await Catalog(StorageLocation.of(site.target)).scan_guest(Guest("fake"))).complete
    assert found.definition.quiesced is False
    assert "saved" in found.definition.not_quiesced
    assert any("the domain is saved" in message for message in site.warnings())


async def test_an_old_libvirt_snapshots_and_a_warning_says_why(site, monkeypatch):
    monkeypatch.setattr("virtbackup_async.engine.point_in_time.open.MIN_QEMU", (99, 0, 0))
    await site.back_up(method="pull")
    assert "its disks are snapshotted instead" in site.warnings()[0]

"""Checkpoints of a running domain: which are asked for, kept and deleted; libvirt is a fake."""

import os
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from fakes.hypervisor import UUID, FakeDomain, FakeHypervisor
from fakes.site import Site
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.engine.backup.domain import drop_unneeded_checkpoints
from virtbackup_async.engine.backup.inspection import Inspection
from virtbackup_async.engine.backup.selection import Selection
from virtbackup_async.engine.backup.state import DomainState
from virtbackup_async.engine.backup.tracking import TrackingRules, track
from virtbackup_async.engine.undo.pull_job import checkpoint_of
from virtbackup_async.errors import (
    ConnectionLostError,
    DomainNotFoundError,
    HypervisorError,
    RollbackError,
)
from virtbackup_async.events import Warned
from virtbackup_async.host.local import LocalHost
from virtbackup_async.images.identity import image_id
from virtbackup_async.model.backup import (
    Definition,
    DiskRecord,
    ImageRecord,
    Packager,
    Pending,
    PendingDisk,
)
from virtbackup_async.model.domain import BackingImage, Disk, DomainInfo
from virtbackup_async.model.guest import Guest
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.model.target_file import TargetFile
from virtbackup_async.model.tracking import Reading, Tracking, checkpoint_name, is_checkpoint_of
from virtbackup_async.repository import make_repository

NAME = "20260301-021500_1_fake"


def run(*words):
    subprocess.run([*map(str, words)], check=True, capture_output=True)


class CheckpointSite(Site):
    """A running domain with one image, and one complete backup of it."""

    def __init__(self, path):
        self.image = path / "vda.qcow2"
        run("qemu-img", "create", "-q", "-f", "qcow2", self.image, "1M")
        super().__init__(path, FakeDomain({"vda": self.image}))
        self.catalog = Catalog(StorageLocation.of(self.target))
        self.repository = make_repository(StorageLocation.of(self.target))
        self.checkpoint = checkpoint_name(self.repository.id)
        self.info = DomainInfo("fake", UUID, 1, True, True, "<domain/>")
        disk = Disk("vda", self.image, "raw")
        chains = {"vda": (BackingImage(self.image, "qcow2"),)}
        self.selection = Selection((disk,), (), DomainState((), {}), pull=True, chains=chains)

    async def has_backup(self, name=NAME, date=1772331300, **devs):
        image = ImageRecord(f"{name}_vda.raw", str(self.image), "raw", 1 << 20, 0, 0, "")
        reading = Reading(
            self.checkpoint, None, "first", date, 0, image_id=image_id(self.image),
            checkpoint_of=name, below=(),
        )  # fmt: skip
        records = {dev: DiskRecord(image, reading=reading) for dev in ("vda", *devs)}
        definition = Definition(
            name, 1, "fake", "<domain/>", dict.fromkeys(records, image.file), "1.0.0", date,
            Packager("repository"), UUID, records, state="running",
        )  # fmt: skip
        (self.target / "fake").mkdir(exist_ok=True)
        (self.target / "fake" / f"{image.file}.map").touch()
        await self.catalog.write_definition(definition)

    async def track(self, **rules):
        images = LocalHost()
        return await track(
            images, self.catalog, self.domain, self.info, self.selection, TrackingRules(**rules)
        )

    async def drop_unneeded(self, tracking):
        found = Inspection(
            LocalHost(), self.domain, self.catalog, self.info, self.selection, tracking
        )
        await drop_unneeded_checkpoints(found, self.events.append)


@pytest.fixture
def site(tmp_path):
    return CheckpointSite(tmp_path)


def deleting(domain, *, answer=True):
    """Record which checkpoints are deleted, and in which disks."""
    deleted = []

    async def delete(name, devs):
        deleted.append((name, sorted(devs)))
        return answer

    domain.delete_checkpoint = delete
    return deleted


async def test_a_checkpoint_that_libvirt_still_has_is_the_base_and_a_new_one_is_named(site):
    await site.has_backup()
    tracking = await site.track()
    assert tracking.since("vda") == site.checkpoint
    assert tracking.disks["vda"].base.backup == NAME
    assert is_checkpoint_of(tracking.checkpoint, site.repository.id)
    assert tracking.checkpoint != site.checkpoint


async def test_all_disks_of_a_checkpoint_are_asked_for_at_once(site):
    asked = []

    async def redefine(name, date, devs):
        asked.append((name, date, devs))
        return frozenset(devs)

    site.domain.redefine_checkpoint = redefine
    await site.has_backup(vdb=True)
    await site.track()
    assert asked == [(site.checkpoint, 1772331300, ["vda", "vdb"])]


async def test_a_bitmap_that_qemu_lost_means_a_full_read_and_a_new_checkpoint(site):
    async def redefine(name, date, devs):
        return frozenset()

    site.domain.redefine_checkpoint = redefine
    await site.has_backup()
    tracking = await site.track()
    assert tracking.since("vda") is None
    assert "lost the dirty bitmap" in tracking.disks["vda"].reason
    assert tracking.in_checkpoint == ("vda",)


async def test_a_disk_without_a_chain_is_not_tracked(site):
    site.selection = replace(site.selection, chains={})
    assert await site.track() == Tracking({}, None)


async def test_an_image_with_internal_snapshots_is_not_tracked_unless_the_rules_say_so(site):
    run("qemu-img", "snapshot", "-c", "before", site.image)
    tracking = await site.track()
    assert "internal snapshots" in tracking.disks["vda"].reason
    assert tracking.checkpoint is None
    assert (await site.track(with_snapshots=True)).in_checkpoint == ("vda",)


async def test_only_a_file_is_known_by_its_inode(site):
    """A device node gets another one when the host starts again."""
    assert (await site.track()).disks["vda"].image_id == image_id(site.image)
    (disk,) = site.selection.disks
    site.selection = replace(site.selection, disks=(replace(disk, kind="block"),))
    assert (await site.track()).disks["vda"].image_id is None


async def test_a_disk_without_a_reading_is_not_asked_for_with_the_others(site):
    await site.has_backup(vdb=True)
    (found,) = (await site.catalog.scan_guest(Guest("fake"))).complete
    records = found.definition.records
    records = {**records, "vdb": replace(records["vdb"], reading=None)}
    await site.catalog.remove_definition(found.path)
    await site.catalog.write_definition(replace(found.definition, records=records))
    asked = []

    async def redefine(name, date, devs):
        asked.append(devs)
        return frozenset(devs)

    site.domain.redefine_checkpoint = redefine
    assert (await site.track()).since("vda") == site.checkpoint
    assert asked == [["vda"]]


def on_top_of(site, below):
    """Make the disk's image an overlay, of which the XML does not say what is below."""
    site.image = site.image.with_name("top.qcow2")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", below, "-F", "qcow2", site.image)
    chain = (BackingImage(site.image, "qcow2"),)
    disk = Disk("vda", site.image, "qcow2")
    site.selection = replace(site.selection, disks=(disk,), chains={"vda": chain})


async def test_what_is_below_an_image_is_found_where_the_xml_does_not_say_it(site):
    below = site.image
    on_top_of(site, below)
    (was,) = (await site.track()).disks["vda"].below
    assert str(below) in was
    run("qemu-img", "create", "-q", "-f", "qcow2", below, "1M")
    assert (await site.track()).disks["vda"].below != (was,)
    below.unlink()
    assert (await site.track()).disks["vda"].below is None, "it need not be a file"


async def test_a_bitmap_of_ours_may_be_removed_from_what_is_below(site):
    """That writes to it, and so the time of the last write says nothing."""
    below = site.image
    on_top_of(site, below)
    with_times = (await site.track()).disks["vda"].below
    run("qemu-img", "bitmap", "--add", below, "an-admins")
    assert (await site.track()).disks["vda"].below != with_times
    run("qemu-img", "bitmap", "--add", below, site.checkpoint)
    before = (await site.track()).disks["vda"].below
    os.utime(below, ns=(0, 0))
    assert (await site.track()).disks["vda"].below == before != with_times


async def test_of_a_backup_that_did_not_record_what_was_below_nothing_is_known(site):
    await site.has_backup()
    (found,) = (await site.catalog.scan_guest(Guest("fake"))).complete
    record = found.definition.records["vda"]
    old = replace(record, reading=replace(record.reading, below=None))
    await site.catalog.remove_definition(found.path)
    await site.catalog.write_definition(replace(found.definition, records={"vda": old}))
    assert (await site.track()).since("vda") == site.checkpoint


async def test_a_transient_domain_gets_no_checkpoint(site):
    site.info = replace(site.info, is_persistent=False)
    tracking = await site.track()
    assert tracking.checkpoint is None
    assert "transient" in tracking.disks["vda"].reason


async def test_the_needed_checkpoint_stays_and_older_ones_go_but_no_foreign_one(site):
    await site.has_backup()
    tracking = await site.track()
    older = checkpoint_name(site.repository.id)
    site.domain.checkpoints = [site.checkpoint, older, "an-admins", checkpoint_name(b"x" * 32)]
    deleted = deleting(site.domain)
    await site.drop_unneeded(tracking)
    assert deleted == [(older, [])]


async def test_a_bitmap_that_libvirt_forgot_goes_after_a_full_read(site):
    forgotten = checkpoint_name(site.repository.id)
    run("qemu-img", "bitmap", "--add", site.image, forgotten)
    tracking = await site.track()
    deleted = deleting(site.domain)
    await site.drop_unneeded(tracking)
    assert deleted == [(forgotten, ["vda"])]


async def test_an_old_checkpoint_that_cannot_be_deleted_is_a_warning(site):
    site.domain.checkpoints = [checkpoint_name(site.repository.id)]

    async def refuse(name, devs):
        raise HypervisorError("a job runs")

    tracking = await site.track()
    site.domain.delete_checkpoint = refuse
    await site.drop_unneeded(tracking)
    assert site.events == [Warned("old checkpoints could not be removed: a job runs", "fake")]


async def test_without_a_repository_nothing_is_deleted(site, tmp_path):
    tracking = await site.track()
    (tmp_path / "empty").mkdir()
    site.catalog = Catalog(StorageLocation.of(tmp_path / "empty"))
    site.domain.checkpoints = [checkpoint_name(site.repository.id)]
    deleted = deleting(site.domain)
    await site.drop_unneeded(tracking)
    assert deleted == []


# What becomes of the checkpoint of a backup that fails.


def begun(site):
    disk = PendingDisk(str(site.image), "raw", None, f"{NAME}_vda.raw", tracked=True)
    pending = Pending(
        NAME, 1, "fake", "<domain/>", {"vda": disk}, "1.0.0", 0, Packager("repository"),
        checkpoint=site.checkpoint,
    )  # fmt: skip
    return pending, TargetFile.of(site.target / "fake" / f"{NAME}.json")


async def fail(site, error=ValueError):
    pending, path = begun(site)
    hypervisor = FakeHypervisor(site.domain)
    try:
        async with checkpoint_of(LocalHost(), hypervisor, site.domain, pending, path):
            if error:
                raise error
    finally:
        site.reconnects = hypervisor.reconnects


async def test_a_failed_backup_deletes_its_checkpoint(site):
    deleted = deleting(site.domain)
    with pytest.raises(ValueError):  # noqa: PT011 -- the block's own
        await fail(site)
    assert deleted == [(site.checkpoint, ["vda"])]


async def test_a_backup_that_succeeds_keeps_its_checkpoint(site):
    deleted = deleting(site.domain)
    await fail(site, error=None)
    assert deleted == []


async def test_a_backup_with_a_definition_is_complete_and_keeps_its_checkpoint(site):
    await site.has_backup()
    deleted = deleting(site.domain)
    with pytest.raises(ValueError):  # noqa: PT011 -- the block's own
        await fail(site)
    assert deleted == []


@pytest.mark.parametrize("gone", [False, True])
async def test_a_shut_off_domains_bitmap_is_removed_from_the_image(site, gone):
    run("qemu-img", "bitmap", "--add", site.image, site.checkpoint)
    run("qemu-img", "bitmap", "--add", site.image, "another")

    async def delete(name, devs):
        if gone:
            raise DomainNotFoundError("no such domain")
        return False

    site.domain.delete_checkpoint = delete
    with pytest.raises(ValueError):  # noqa: PT011 -- the block's own
        await fail(site)
    info = await LocalHost().info(BackingImage(site.image, "qcow2"))
    assert info.bitmaps == {"another"}


async def test_an_image_that_is_gone_has_no_bitmap(site):
    deleting(site.domain, answer=False)
    Path(site.image).unlink()
    with pytest.raises(ValueError):  # noqa: PT011 -- the block's own
        await fail(site)


async def test_a_checkpoint_is_deleted_through_a_restart_of_libvirt(site):
    site.domain.before["delete_checkpoint"] = [failing(ConnectionLostError("closed"))]
    with pytest.raises(ValueError):  # noqa: PT011 -- the block's own
        await fail(site)
    assert site.domain.calls.count("delete_checkpoint") == 2
    assert site.reconnects == 1


async def test_a_checkpoint_that_stays_is_an_error_that_keeps_the_pending_file(site):
    site.domain.before["delete_checkpoint"] = [failing(HypervisorError("a job runs"))]
    with pytest.raises(RollbackError, match="is still there: a job runs") as raised:
        await fail(site)
    assert "clean -b" in str(raised.value)


def failing(error):
    def act():
        raise error

    return act

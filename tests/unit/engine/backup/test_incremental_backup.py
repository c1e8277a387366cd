"""Whole incremental backups of a shut-off domain: its images and qemu-nbd are real, libvirt is not.

Only a running QEMU makes a checkpoint, so the first backup's definition is made to name one, and
its bitmap is added to the image by ``qemu-img``.
"""

import re
import shutil
import subprocess
from uuid import uuid4

import pytest
from msgspec.structs import replace

from fakes.hypervisor import DescribedDomain
from fakes.site import Site
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.events import BackupDone, DiskDone, Warned
from virtbackup_async.model.guest import Guest
from virtbackup_async.model.storage_location import StorageLocation

MIB = 1 << 20
CHECKPOINT = "virtbackup-00000000-00000000-0000-4000-8000-000000000000"


def run(*words):
    subprocess.run([*map(str, words)], check=True, capture_output=True)


def write(image, pattern, start, length="64k"):
    run("qemu-io", "-c", f"write -P {pattern} {start} {length}", image)


class OfflineDomain(DescribedDomain):
    """A domain that is shut off, on a qcow2 image."""

    async def info(self):
        info = await super().info()
        return replace(info, xml=info.xml.replace("type='raw'", "type='qcow2'"))


class IncrementalSite(Site):
    """A shut-off domain on a qcow2 image, which is read through QEMU's NBD server."""

    def __init__(self, path):
        self.image, self.below = path / "vda.qcow2", path / "below.raw"
        self.below.write_bytes(b"b" * (4 * MIB))
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", self.below, "-F", "raw", self.image)
        write(self.image, 1, 0, "1M")
        domain = OfflineDomain({"vda": self.image}, active=False)
        domain.uuid = str(uuid4())
        super().__init__(path, domain, packager="repository", method="pull", audit_percent=0)

    async def back_up(self, target="target"):
        (self.root / target).mkdir(exist_ok=True)
        ended = await super().back_up(target=str(self.root / target))
        assert isinstance(ended, BackupDone), ended
        (disk,) = self.of(DiskDone)
        return ended, disk

    async def begin(self):
        """Back up, as if a checkpoint had been made at that moment."""
        done, _disk = await self.back_up()
        catalog = Catalog(StorageLocation.of(self.target))
        (found,) = (await catalog.scan_guest(Guest("fake"))).complete
        record = found.definition.records["vda"]
        reading = replace(
            record.reading, checkpoint=CHECKPOINT, checkpoint_of=found.definition.name
        )
        await catalog.remove_definition(found.path)
        records = {"vda": replace(record, reading=reading)}
        await catalog.write_definition(replace(found.definition, records=records))
        run("qemu-img", "bitmap", "--add", self.image, CHECKPOINT)
        return done.backup


@pytest.fixture
def site(tmp_path):
    return IncrementalSite(tmp_path)


async def test_only_what_the_bitmap_has_is_read_and_the_backup_is_complete(site):
    first = await site.begin()
    write(site.image, 2, "2M")
    done, disk = await site.back_up()
    assert (disk.base, disk.reason) == (first, None)
    assert 0 < done.read_bytes < MIB
    _, full = await site.back_up("another")
    assert disk.digest == full.digest
    assert full.base is None


async def test_the_next_backup_is_based_on_the_same_checkpoint_again(site):
    first = await site.begin()
    write(site.image, 2, "2M")
    await site.back_up()
    write(site.image, 3, "3M")
    _, disk = await site.back_up()
    assert disk.base == first, "the bitmap has all changes since"
    _, full = await site.back_up("another")
    assert disk.digest == full.digest


async def test_an_audit_that_agrees_reads_more_and_says_nothing(site):
    await site.begin()
    site.group["audit_percent"] = 100
    done, disk = await site.back_up()
    assert disk.base is not None
    assert done.read_bytes > 0
    assert done.audit_failures == 0


async def test_an_audit_that_finds_an_unrecorded_change_makes_the_disk_be_read_in_full(site):
    await site.begin()
    run("qemu-img", "bitmap", "--disable", site.image, CHECKPOINT)
    write(site.image, 9, 0)
    run("qemu-img", "bitmap", "--enable", site.image, CHECKPOINT)
    site.group["audit_percent"] = 100
    done, disk = await site.back_up()
    assert disk.base is None
    assert "the audit found changes" in disk.reason
    assert done.audit_failures == 1
    assert any("is read in full" in e.message for e in site.events if isinstance(e, Warned))
    _, full = await site.back_up("another")
    assert disk.digest == full.digest


def lose_bitmap(site):
    run("qemu-img", "bitmap", "--remove", site.image, CHECKPOINT)


def replace_image(site):
    copy = site.image.with_name("copy")
    shutil.copyfile(site.image, copy)
    copy.replace(site.image)


def move_image(site):
    moved = site.image.with_name("moved.qcow2")
    site.image.rename(moved)
    site.domain.own["vda"] = moved


def change_below(site):
    with site.below.open("r+b") as file:
        file.write(b"c")


def resize(site):
    run("qemu-img", "resize", site.image, "5M")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lose_bitmap, f"lost the dirty bitmap of checkpoint {CHECKPOINT}"),
        (replace_image, "its image was replaced since the last backup"),
        (move_image, "it was on .*vda.qcow2 at the last backup"),
        (change_below, "an image below it was changed"),
        (resize, "its size changed"),
    ],
)
async def test_a_disk_that_cannot_be_read_incrementally_is_read_in_full(site, change, reason):
    await site.begin()
    change(site)
    done, disk = await site.back_up()
    assert disk.base is None
    assert re.search(reason, disk.reason), disk.reason
    assert done.read_bytes >= MIB


async def test_a_first_backup_is_read_in_full(site):
    _, disk = await site.back_up()
    assert disk.reason == "no earlier backup of it has a checkpoint"


async def test_a_disk_whose_last_full_read_is_too_old_is_read_in_full(site):
    await site.begin()
    site.group["full_every"] = "30d"
    catalog = Catalog(StorageLocation.of(site.root / "target"))
    (found,) = (await catalog.scan_guest(Guest("fake"))).complete
    record = found.definition.records["vda"]
    old = replace(record, reading=replace(record.reading, full_date=1))
    await catalog.remove_definition(found.path)
    await catalog.write_definition(replace(found.definition, records={"vda": old}))
    _, disk = await site.back_up()
    assert disk.reason == "it was last read in full as long ago as `full_every` says"

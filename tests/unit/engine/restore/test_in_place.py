"""engine/restore/in_place.py: each image is the old one or the new one, whoever dies and when."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from anyio import create_task_group
from msgspec.structs import replace

from fakes.hypervisor import FakeDomain
from fakes.site import Site
from fakes.stored_backup import MIB
from virtbackup_async.engine.locks import hold_domain
from virtbackup_async.engine.restore.in_place import InPlaceRequest, restore_in_place
from virtbackup_async.errors import (
    CorruptError,
    DiskNotFoundError,
    HypervisorError,
    LockHeldError,
    NotFoundError,
    RollbackError,
    StorageError,
)
from virtbackup_async.events import DiskDone, DiskProgress, RestoreStarted, Warned
from virtbackup_async.host.local import LocalHost
from virtbackup_async.model.backup import DiskRecord, Packager
from virtbackup_async.model.domain import DomainInfo
from virtbackup_async.model.names import is_kept
from virtbackup_async.qemu.qcow2 import head_of

PROGRAM = Path(__file__).with_name("killed_restore.py")
CALLS = {"link": 4, "replace": 2, "unlink": 2, "fsync": 4}
"""How often each is called at least: twice for each disk, or once."""
OLD = {"vda": b"old vda" * 1000, "vdb": b"old vdb" * 1000}


class ShutOff(FakeDomain):
    """A domain that tells its disks in its XML; ``starts_at`` is the look that finds it running."""

    def __init__(self, images):
        super().__init__(images, active=False)
        self.starts_at = None
        self.formats = dict.fromkeys(images, "raw")
        self.below = ""

    async def info(self):
        await super().info()
        looks = self.calls.count("info")
        disks = "".join(
            f"<disk type='file'><driver type='{self.formats[dev]}'/>"
            f"<source file='{path}'/><target dev='{dev}'/>{self.below}</disk>"
            for dev, path in self.own.items()
        )
        xml = f"<domain><devices>{disks}</devices></domain>"
        active = self.starts_at is not None and looks >= self.starts_at
        saved = bool(self.saved)
        return DomainInfo(self.name, self.uuid, -1, active, True, xml, is_saved=saved)


class ReplacedSite(Site):
    """Two disks, their backup, and what they were overwritten with since."""

    def __init__(self, root):
        super().__init__(root, target="t")
        self.images = {dev: root / "images" / f"{dev}.raw" for dev in OLD}
        (root / "images").mkdir(exist_ok=True)

    async def make(self, packager):
        self.stored = await self.store(packager, "fake")
        self.new = (self.root / "image.raw").read_bytes()
        record = self.stored.definition.records["vda"].image
        # Both disks hold the same: one file in the package is enough.
        self.definition = replace(
            self.stored.definition,
            disks=dict.fromkeys(OLD, record.file),
            records={
                dev: DiskRecord(replace(record, source=str(path)))
                for dev, path in self.images.items()
            },
        )
        self.reset()
        return self

    def reset(self):
        for dev, path in self.images.items():
            path.unlink(missing_ok=True)
            path.write_bytes(OLD[dev])
            path.chmod(0o640)
        self.domains = (ShutOff(self.images),)

    async def restore(self, definition=None, disks=(), **options):
        definition = definition or self.definition
        request = InPlaceRequest(definition, self.stored.directory, disks, **options)
        return await restore_in_place(self.runtime(), request)

    def files(self):
        return sorted(path.name for path in (self.root / "images").iterdir())

    def assert_untouched(self):
        assert {dev: path.read_bytes() for dev, path in self.images.items()} == OLD
        assert self.files() == ["vda.raw", "vdb.raw"]


@pytest.fixture(params=["directory", "tar", "zstd"])
async def any_site(request, tmp_path):
    return await ReplacedSite(tmp_path).make(Packager(request.param))


@pytest.fixture
async def site(tmp_path):
    return await ReplacedSite(tmp_path).make(Packager("directory"))


async def test_images_are_replaced_with_owner_and_mode_kept(any_site):
    os.chown(any_site.images["vda"], 1234, 4321)
    done = await any_site.restore()
    for path in any_site.images.values():
        assert path.read_bytes() == any_site.new
        assert path.stat().st_mode & 0o777 == 0o640
    status = any_site.images["vda"].stat()
    assert (status.st_uid, status.st_gid) == (1234, 4321)
    assert status.st_blocks * 512 < MIB, "the hole is data now"
    kept = [Path(path) for path in done.kept]
    assert [path.read_bytes() for path in kept] == list(OLD.values())
    assert all(is_kept(path.name) for path in kept)
    assert any_site.files() == sorted(["vda.raw", "vdb.raw", *(path.name for path in kept)])
    assert done.verified
    assert done.files == tuple(map(str, any_site.images.values()))
    (started,) = any_site.of(RestoreStarted)
    assert (started.target, started.disks) == (str(any_site.root / "images"), ("vda", "vdb"))
    assert {event.disk for event in any_site.of(DiskDone)} == {"vda", "vdb"}
    assert any_site.of(DiskProgress)


async def test_what_was_replaced_is_discarded_where_that_is_wanted(site):
    done = await site.restore(discard_old=True)
    assert done.kept == ()
    assert site.files() == ["vda.raw", "vdb.raw"]
    assert site.images["vda"].read_bytes() == site.new


async def test_what_is_kept_twice_in_a_second_has_two_names(site):
    kept = [path for _ in range(3) for path in (await site.restore()).kept]
    assert len(set(kept)) == 6
    assert sorted(Path(path).read_bytes() for path in kept)[-2:] == sorted(OLD.values())


async def test_an_old_image_that_cannot_be_named_anew_stays_and_is_told(site, monkeypatch):
    link = os.link

    def refusing(source, target):
        if is_kept(Path(target).name):
            raise OSError(28, "No space left on device")
        link(source, target)

    monkeypatch.setattr(os, "link", refusing)
    assert (await site.restore()).kept == ()
    assert len(site.of(Warned)) == 2
    assert [site.images["vda"].read_bytes()] == [site.new]
    assert len([name for name in site.files() if ".vbk-old-" in name]) == 2


@pytest.mark.parametrize("options", ["", "cluster_size=4k,lazy_refcounts=on", "compat=0.10"])
async def test_what_was_pulled_from_qcow2_becomes_such_an_image_again(site, options):
    image = site.images["vdb"]
    image.unlink()
    run_qemu_img("create", "-q", "-f", "qcow2", *(["-o", options] if options else []), image, "3M")
    before = head_of(image).layout
    site.domain.formats["vdb"] = "qcow2"
    done = await site.restore()
    assert head_of(image).layout == before
    run_qemu_img("check", "-q", "-f", "qcow2", image)
    run_qemu_img("compare", "-q", "-f", "raw", "-F", "qcow2", site.root / "image.raw", image)
    formats = {found.disk: found.format for found in done.formats}
    assert formats == {"vda": "raw", "vdb": "qcow2"}
    assert done.verified


async def test_internal_snapshots_that_are_left_behind_are_told(site):
    image = site.images["vdb"]
    image.unlink()
    run_qemu_img("create", "-q", "-f", "qcow2", image, "3M")
    run_qemu_img("snapshot", "-c", "before", image)
    site.domain.formats["vdb"] = "qcow2"
    await site.restore()
    (warned,) = site.of(Warned)
    assert warned.message.startswith("vdb loses its internal snapshots")


async def test_a_pulled_disk_whose_image_is_gone_becomes_qcow2(site):
    site.images["vdb"].unlink()
    site.domain.formats["vdb"] = "qcow2"
    await site.restore()
    image = site.images["vdb"]
    run_qemu_img("compare", "-q", "-f", "raw", "-F", "qcow2", site.root / "image.raw", image)


async def test_a_pulled_disk_is_not_put_above_an_image_that_the_xml_names(site):
    site.domain.formats["vdb"] = "qcow2"
    site.domain.below = "<backingStore type='file'><source file='/base'/></backingStore>"
    with pytest.raises(DiskNotFoundError, match=r"its XML puts an image below vdb.*virsh edit"):
        await site.restore()
    site.assert_untouched()


def run_qemu_img(*words):
    subprocess.run(["qemu-img", *map(str, words)], check=True)


async def test_wanted_disk_is_replaced_alone(site):
    await site.restore(disks=("vdb",))
    assert site.images["vda"].read_bytes() == OLD["vda"]
    assert site.images["vdb"].read_bytes() == site.new
    with pytest.raises(NotFoundError):
        await site.restore(disks=("vdx",))


async def test_image_that_is_missing_is_made(site):
    site.images["vda"].unlink()
    await site.restore()
    assert site.images["vda"].read_bytes() == site.new


async def test_symlink_stays_and_its_file_is_replaced(site):
    elsewhere = site.root / "elsewhere.raw"
    site.images["vda"].rename(elsewhere)
    site.images["vda"].symlink_to(elsewhere)
    await site.restore()
    assert site.images["vda"].is_symlink()
    assert elsewhere.read_bytes() == site.new
    assert sorted(path.name for path in site.root.glob("*.vbk-*")) == []


async def test_a_saved_domain_keeps_its_images_and_its_memory(site):
    site.domain.saved = dict(site.images)
    with pytest.raises(HypervisorError, match="its old memory on new disks") as raised:
        await site.restore()
    assert "--remove-managed-save" in str(raised.value)
    assert site.domain.saved
    site.assert_untouched()


async def test_the_memory_goes_just_before_the_images(site):
    site.domain.saved = dict(site.images)
    held = {}
    remove = site.domain.remove_saved

    async def removing():
        held.update({dev: path.read_bytes() for dev, path in site.images.items()})
        held["parts"] = len(site.files()) - len(site.images)
        await remove()

    site.domain.remove_saved = removing
    await site.restore(remove_saved=True)
    assert site.domain.saved == {}
    assert held == {**OLD, "parts": 2}
    assert {path.read_bytes() for path in site.images.values()} == {site.new}


async def test_a_memory_that_cannot_be_removed_keeps_its_images(site):
    site.domain.saved = dict(site.images)

    def refuse():
        raise HypervisorError("it is in use", domain="fake")

    site.domain.before["remove_saved"] = [refuse]
    with pytest.raises(HypervisorError, match="it is in use"):
        await site.restore(remove_saved=True)
    site.assert_untouched()


# Looks: before anything, for the paths, before each of two swaps, and after the last one.
@pytest.mark.parametrize("look", [1, 3, 4, 5])
async def test_domain_that_is_started_keeps_its_images(site, look):
    inodes = {dev: path.stat().st_ino for dev, path in site.images.items()}
    site.domain.starts_at = look
    with pytest.raises(HypervisorError, match="fake is running"):
        await site.restore()
    site.assert_untouched()
    assert {dev: path.stat().st_ino for dev, path in site.images.items()} == inodes


async def test_damaged_package_replaces_nothing(any_site):
    any_site.stored.flip(0.9)
    with pytest.raises(CorruptError):
        await any_site.restore()
    any_site.assert_untouched()


async def test_cancelled_restore_replaces_nothing(site):
    async with create_task_group() as tasks:
        site.on[lambda event: isinstance(event, DiskDone)] = tasks.cancel_scope.cancel
        await site.restore()
    assert tasks.cancel_scope.cancelled_caught
    site.assert_untouched()


async def test_swap_that_fails_puts_the_first_image_back(site, monkeypatch):
    linked = []
    link = os.link

    def full_disk(source, target):
        linked.append(target)
        if len(linked) == 2:
            raise OSError(28, "No space left on device")
        link(source, target)

    monkeypatch.setattr(os, "link", full_disk)
    with pytest.raises(StorageError, match="no space left"):
        await site.restore()
    site.assert_untouched()


async def test_locked_domain_is_left_alone(site):
    async with hold_domain(LocalHost(site.locks), "fake", site.domain.uuid, "backup"):
        with pytest.raises(LockHeldError, match="backup"):
            await site.restore()
    site.assert_untouched()


async def test_another_domain_of_the_same_name_is_left_alone(site):
    other = replace(site.definition, domain_uuid="b9ef5a09-6e0f-4a44-9e2b-5e5f7a1d2c3b")
    with pytest.raises(HypervisorError, match="another domain"):
        await site.restore(other)
    site.assert_untouched()


async def test_disks_that_do_not_fit_the_domain_are_refused(site):
    image = site.definition.records["vdb"].image
    packed = DiskRecord(replace(image, format="qcow2"))
    other = replace(site.definition, records={**site.definition.records, "vdb": packed})
    with pytest.raises(DiskNotFoundError, match="vdb is raw now, the backup has qcow2"):
        await site.restore(other)
    del site.domain.own["vdb"]
    with pytest.raises(DiskNotFoundError, match="no disk vdb"):
        await site.restore()
    site.assert_untouched()


ENCRYPTION = "<encryption format='luks'/>"


async def test_a_backup_in_plain_text_does_not_take_the_place_of_an_encrypted_image(site):
    site.domain.below = ENCRYPTION
    with pytest.raises(DiskNotFoundError, match="vda is encrypted now, the backup has it in plain"):
        await site.restore()
    site.assert_untouched()


async def test_an_encrypted_backup_does_not_take_the_place_of_an_image_in_plain_text(site):
    disk = f"<disk>{ENCRYPTION}<target dev='vda'/></disk>"
    xml = f"<domain><devices>{disk}</devices></domain>"
    with pytest.raises(DiskNotFoundError, match="vda is in plain text now, the backup has it enc"):
        await site.restore(replace(site.definition, domain_xml=xml))
    site.assert_untouched()


async def test_an_encrypted_raw_image_is_put_in_the_place_of_one(site):
    site.domain.below = ENCRYPTION
    records = {
        dev: DiskRecord(replace(record.image, format="luks"))
        for dev, record in site.definition.records.items()
    }
    disks = "".join(f"<disk>{ENCRYPTION}<target dev='{dev}'/></disk>" for dev in records)
    xml = f"<domain><devices>{disks}</devices></domain>"
    changed = replace(site.definition, domain_xml=xml, records=records, method="pull")
    await site.restore(changed)
    assert all(image.read_bytes() != OLD[dev] for dev, image in site.images.items())


async def test_cipher_text_does_not_take_the_place_of_an_encrypted_qcow2(site):
    """In a qcow2 without the key's head it would be of no use to anybody."""
    site.domain.below = ENCRYPTION
    site.domain.formats = dict.fromkeys(site.images, "qcow2")
    disks = "".join(f"<disk>{ENCRYPTION}<target dev='{dev}'/></disk>" for dev in site.images)
    xml = f"<domain><devices>{disks}</devices></domain>"
    with pytest.raises(DiskNotFoundError, match="vda is qcow2 now, the backup has luks"):
        await site.restore(replace(site.definition, domain_xml=xml))
    site.assert_untouched()


async def test_two_disks_on_one_image_are_refused(site):
    site.domain.own["vdb"] = site.images["vda"]
    with pytest.raises(StorageError, match="two disks are on one image"):
        await site.restore()
    site.assert_untouched()


async def test_overlay_of_a_killed_backup_is_refused(site):
    site.domain.own["vdb"] = site.images["vdb"].with_name("vdb.raw.vbk-0a1b2c3d")
    with pytest.raises(RollbackError, match="clean -b"):
        await site.restore()
    site.assert_untouched()


@pytest.mark.parametrize("kind", ["directory", "fifo"])
async def test_what_is_no_regular_file_is_refused(site, kind):
    path = site.images["vdb"]
    path.unlink()
    path.mkdir() if kind == "directory" else os.mkfifo(path)
    with pytest.raises(StorageError, match="not a regular file"):
        await site.restore()
    assert site.images["vda"].read_bytes() == OLD["vda"]


async def test_too_little_space_is_said_before_anything_is_written(site):
    image = site.definition.records["vda"].image
    huge = {**site.definition.records, "vda": DiskRecord(replace(image, data_bytes=1 << 60))}
    with pytest.raises(StorageError, match="too little room"):
        await site.restore(replace(site.definition, records=huge))
    site.assert_untouched()
    assert not site.of(RestoreStarted)


async def test_a_file_system_that_does_not_tell_its_space_is_an_error_of_the_storage(
    site, monkeypatch
):
    def fail(path):
        raise OSError(errno.EIO, "Input/output error", os.fspath(path))

    monkeypatch.setattr(os, "statvfs", fail)
    with pytest.raises(StorageError, match=f"cannot use {site.root}.*: Input/output error"):
        await site.restore()
    site.assert_untouched()
    assert not site.of(RestoreStarted)


async def test_images_below_are_compared_and_never_written(site):
    backing = site.root / "golden.raw"
    backing.write_bytes(site.new)
    image = site.definition.records["vda"].image
    record = DiskRecord(image, (replace(image, source=str(backing)),))
    chained = replace(site.definition, records={**site.definition.records, "vda": record})
    await site.restore(chained, discard_old=True)
    site.reset()
    backing.write_bytes(b"changed")
    with pytest.raises(CorruptError, match="below vda, is not what it was"):
        await site.restore(chained)
    assert backing.read_bytes() == b"changed"
    site.assert_untouched()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("step", "number"), [(step, number) for step in CALLS for number in range(1, CALLS[step] + 1)]
)
async def test_killed_restore_leaves_old_or_new_images_and_can_be_repeated(
    site, step, when, number
):
    words = [site.root, site.stored.path, step, when, number]
    ended = subprocess.run([sys.executable, PROGRAM, *map(str, words)], check=False)
    assert ended.returncode == -signal.SIGKILL
    for dev, path in site.images.items():
        assert path.read_bytes() in (OLD[dev], site.new)
    await site.restore()
    for path in site.images.values():
        assert path.read_bytes() == site.new
    left = [name for name in site.files() if name not in {"vda.raw", "vdb.raw"}]
    kept = [name for name in left if is_kept(name)]
    assert len(site.of(Warned)) == len(left) - len(kept)
    assert all(".vbk-old-" in name for name in left if name not in kept)
    # What was there before the killed one is there still, by some name.
    contents = [(site.root / "images" / name).read_bytes() for name in left]
    assert all(old in contents for old in OLD.values())

"""What happens to images between two backups without a word to libvirt: bytes stay right."""

import json
import shutil

import pytest

from incremental_site import MIB, IncrementalSite
from lab.disks import DiskSpec
from lab.process import LabError, run
from virtbackup_async.engine.inventory.chosen_backup import find_backup
from virtbackup_async.engine.restore.define import DefineRequest, restore_domain
from virtbackup_async.engine.restore.in_place import InPlaceRequest, restore_in_place
from virtbackup_async.engine.runtime import Runtime, open_runtime
from virtbackup_async.hypervisor import open_hypervisor


@pytest.fixture
def site(daemon, make_domain, tmp_path, monkeypatch):
    # Without an agent's channel the job's socket goes where the daemon has a directory for QEMU.
    monkeypatch.setenv("XDG_CONFIG_HOME", str(daemon.path / "c"))
    return IncrementalSite(daemon, make_domain, tmp_path)


@pytest.mark.parametrize("runs", [False, True])
async def test_an_image_put_back_after_a_backup_of_the_domain_off(site, runs):
    site.write("vda", "write -P 1 0 8M")
    site.write("vdb", "write -P 1 0 1M")
    await site.back_up()
    site.domain.destroy()
    site.save("vda")
    site.domain.start_paused()
    site.write("vda", "write -P 9 3M 512k")
    site.write("vdb", "write -P 9 0 64k")
    site.domain.destroy()
    await site.back_up()
    site.put_back("vda")
    if runs:
        site.domain.start_paused()
        site.write("vda", "write -P 5 6M 64k")
    again = await site.back_up()
    assert not again.is_full("vda")
    assert not again.is_full("vdb")
    assert again.disks["vda"].read_bytes <= MIB
    await site.check()


@pytest.mark.parametrize("runs", [False, True])
async def test_without_the_backup_that_made_the_checkpoint(site, runs):
    site.write("vda", "write -P 1 0 8M")
    made = (await site.back_up()).recorder.done.backup
    site.domain.destroy()
    site.save("vda")
    site.domain.start_paused()
    site.write("vda", "write -P 9 3M 512k")
    site.domain.destroy()
    await site.back_up()
    site.remove(made)
    site.put_back("vda")
    if runs:
        site.domain.start_paused()
        site.write("vda", "write -P 5 6M 64k")
    again = await site.back_up()
    assert not again.is_full("vda")
    assert again.disks["vda"].read_bytes <= 2 * MIB
    await site.check()


async def test_an_old_bitmap_that_came_back_with_an_image_goes(site):
    await site.back_up()
    (old,) = site.checkpoints()
    site.domain.destroy()
    site.save("vda")
    site.domain.start_paused()
    site.write("vda", "write -P 9 3M 512k")
    await site.back_up()
    site.domain.destroy()
    site.put_back("vda")
    assert site.stored_bitmaps("vda") == {old}
    site.domain.start_paused()
    assert "lost the dirty bitmap" in (await site.back_up()).reason("vda")
    site.domain.destroy()
    assert site.stored_bitmaps("vda") == set(site.checkpoints())
    await site.check()


async def test_a_disk_that_shrank_and_grew_again_has_lost_its_end(site):
    site.write("vda", "write -P 1 0 64M")
    await site.back_up()
    site.domain.destroy()
    image = site.domain.images(inactive=True)["vda"]
    run("qemu-img", "resize", "-q", "--shrink", image, "40M")
    run("qemu-img", "resize", "-q", image, "64M")
    await site.back_up()
    site.domain.start_paused()
    site.write("vda", "write -P 5 50M 64k")
    await site.back_up()
    await site.check()


async def test_a_running_disk_that_shrank_and_grew_again_has_lost_its_end(site):
    site.write("vda", "write -P 1 0 64M")
    await site.back_up()
    site.daemon.virsh("blockresize", site.name, "vda", "40M")
    site.daemon.virsh("blockresize", site.name, "vda", "64M")
    site.write("vda", "write -P 5 50M 64k")
    await site.back_up()
    await site.check()


@pytest.fixture
def snapshotted(daemon, make_domain, tmp_path, monkeypatch):
    """A domain whose disks are qcow2, so that it can have internal snapshots."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(daemon.path / "c"))
    return IncrementalSite(
        daemon, make_domain, tmp_path, [DiskSpec("vda", fs=None), DiskSpec("vdb", fs=None)]
    )


async def test_internal_snapshots_can_be_reverted_to_after_a_backup(snapshotted):
    site = snapshotted
    site.write("vda", "write -P 1 0 8M")
    site.daemon.virsh("snapshot-create-as", site.name, "before")
    site.write("vda", "write -P 2 1M 1M")
    first = await site.back_up()
    assert "internal snapshots" in first.reason("vda")
    assert site.checkpoints() == []
    site.daemon.virsh("snapshot-revert", site.name, "before", "--paused")
    site.write("vda", "write -P 3 5M 64k")
    assert (await site.back_up()).is_full("vda")
    await site.check()


async def test_a_backup_after_an_internal_snapshot_takes_the_checkpoint_away(snapshotted):
    site = snapshotted
    site.write("vda", "write -P 1 0 8M")
    await site.back_up()
    assert len(site.checkpoints()) == 1
    site.daemon.virsh("snapshot-create-as", site.name, "between")
    site.write("vda", "write -P 2 1M 1M")
    assert "internal snapshots" in (await site.back_up()).reason("vda")
    assert site.checkpoints() == []
    site.daemon.virsh("snapshot-revert", site.name, "between", "--paused")
    await site.back_up()
    await site.check()


async def test_who_wants_it_has_both_and_no_revert(snapshotted):
    site = snapshotted
    site.daemon.virsh("snapshot-create-as", site.name, "before")
    site.config = site.configured(track_with_snapshots=True)
    await site.back_up()
    site.write("vda", "write -P 2 1M 1M")
    assert not (await site.back_up()).is_full("vda")
    with pytest.raises(LabError, match="dirty bitmaps"):
        site.daemon.virsh("snapshot-revert", site.name, "before", "--paused")
    if site.domain.state() == "shut off":
        site.domain.start_paused()
    for name in site.checkpoints():
        site.daemon.virsh("checkpoint-delete", site.name, name)
    site.daemon.virsh("snapshot-revert", site.name, "before", "--paused")
    again = await site.back_up()
    assert "lost the dirty bitmap" in again.reason("vda")
    await site.check()


async def test_an_image_below_that_was_written_to(daemon, make_domain, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(daemon.path / "c"))
    site = IncrementalSite(daemon, make_domain, tmp_path, [DiskSpec("vda", backing=1, fs=None)])
    await site.back_up()
    site.write("vda", "write -P 2 1M 1M")
    assert not (await site.back_up()).is_full("vda")
    site.domain.destroy()
    image = site.domain.images(inactive=True)["vda"]
    below = json.loads(run("qemu-img", "info", "--output=json", image))["full-backing-filename"]
    run("qemu-io", "-c", "write -P 7 3M 64k", below)
    assert "an image below it was changed" in (await site.back_up()).reason("vda")
    site.domain.start_paused()
    assert (await site.back_up()).is_full("vda")
    assert not (await site.back_up()).is_full("vda")
    await site.check()


async def test_a_copy_of_a_running_image_has_no_bitmap_to_trust(site):
    site.write("vda", "write -P 1 0 8M")
    await site.back_up()
    site.write("vda", "write -P 2 1M 64k")
    image = site.domain.images()["vda"]
    site.saved["vda"] = shutil.copyfile(image, site.path / "vda.saved")
    site.write("vda", "write -P 3 3M 64k")
    site.domain.destroy()
    await site.back_up()
    site.put_back("vda")
    assert "lost the dirty bitmap" in (await site.back_up()).reason("vda")
    site.domain.start_paused()
    assert (await site.back_up()).is_full("vda")
    await site.check()


async def test_what_other_programs_of_qemu_write_is_in_the_bitmap(site):
    site.write("vda", "write -P 1 0 8M")
    await site.back_up()
    site.domain.destroy()
    image = site.domain.images(inactive=True)["vda"]
    run("qemu-io", "-f", "qcow2", "-c", "write -P 2 1M 64k", image)
    raw = site.path / "whole.raw"
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, raw)
    with raw.open("r+b") as file:
        file.seek(5 * MIB)
        file.write(b"y" * MIB)
    run("qemu-img", "convert", "-n", "-f", "raw", "-O", "qcow2", raw, image)
    await site.back_up()
    site.domain.start_paused()
    await site.back_up()
    await site.check()


async def test_an_image_with_its_data_elsewhere_is_read_in_full(site):
    site.domain.destroy()
    image = site.domain.images(inactive=True)["vda"]
    image.unlink()
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={image}.data", image, "64M")
    site.domain.start_paused()
    site.write("vda", "write -P 1 0 8M")
    assert "another file" in (await site.back_up()).reason("vda")
    site.write("vda", "write -P 2 1M 64k")
    again = await site.back_up()
    assert again.is_full("vda")
    assert not again.is_full("vdb")
    await site.check()


async def in_place(site):
    async with open_hypervisor(site.config.uri) as hypervisor:
        found = await find_backup(site.config, "all", site.name, None)
        runtime = Runtime(site.config, lambda _event: None, hypervisor, lock_directory=site.path)
        request = InPlaceRequest(found.definition, found.path.parent, ("vda", "vdb"))
        return await restore_in_place(runtime, request)


async def test_a_disk_that_was_restored_in_place_is_incremental_again(site):
    site.write("vda", "write -P 1 0 8M", "write -P 2 63M 1M")
    done = (await site.back_up()).recorder.done
    held = site.backups[done.backup]
    site.write("vda", "write -P 9 1M 40M")
    site.domain.destroy()
    restored = await in_place(site)
    image = site.domain.images(inactive=True)["vda"]
    run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", held / "vda", image)
    assert {found.disk: found.format for found in restored.formats} == {
        "vda": "qcow2",
        "vdb": "qcow2",
    }
    assert len(restored.kept) == 2
    site.domain.start_paused()
    assert "replaced" in (await site.back_up()).reason("vda")
    site.write("vda", "write -P 7 5M 64k")
    again = await site.back_up()
    assert not again.is_full("vda")
    assert not again.is_full("vdb")
    await site.check()


async def test_a_twin_of_a_pulled_domain_is_on_qcow2_again(site):
    site.write("vda", "write -P 1 0 8M")
    done = (await site.back_up()).recorder.done
    place = site.path / "twin"
    found = await find_backup(site.config, "all", site.name, done.backup)
    request = DefineRequest(found.definition, found.path.parent, place, new_name="twin")
    async with open_runtime(site.config, lambda _event: None) as runtime:
        await restore_domain(runtime, request)
    try:
        site.daemon.virsh("start", "twin", "--paused")
        xml = site.daemon.virsh("dumpxml", "twin")
        assert xml.count("type='qcow2'") == 2
        (image,) = place.glob("*-vda.qcow2")
        held = site.backups[done.backup] / "vda"
        run("qemu-img", "compare", "-U", "-f", "raw", "-F", "qcow2", held, image)
    finally:
        site.daemon.virsh("destroy", "twin")
        site.daemon.virsh("undefine", "twin")

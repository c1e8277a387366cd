"""Incremental backups on real QEMU: each one restores byte for byte, whatever happened between."""

import filecmp
import json
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

from incremental_site import MIB, IncrementalSite
from lab.disks import DiskSpec
from lab.process import run
from recording import On, Recorder, assert_at_home, back_up, configure, restore
from virtbackup_async.catalog.checksum import checksum_of
from virtbackup_async.events import BackupStarted, Phase, Warned
from virtbackup_async.qemu import qemu_nbd


@pytest.fixture
def site(daemon, make_domain, tmp_path, monkeypatch):
    # Without an agent's channel the job's socket goes where the daemon has a directory for QEMU.
    monkeypatch.setenv("XDG_CONFIG_HOME", str(daemon.path / "c"))
    return IncrementalSite(daemon, make_domain, tmp_path)


async def test_each_backup_holds_what_was_on_the_disks(site):
    site.write("vda", "write -P 1 0 8M", "write -P 2 20M 1M")
    site.write("vdb", "write -P 3 5M 2M")
    site.write("vdc", "write -P 4 1M 1M")
    first = await site.back_up()
    assert first.is_full("vda")
    assert "no earlier backup" in first.reason("vda")
    assert "raw image cannot keep" in first.reason("vdc")

    site.write(
        "vda", "write -P 9 3M 100k", "write -z 1M 1M", "discard 20M 512k", "write -P 8 63M 1M"
    )
    second = await site.back_up()

    assert not second.is_full("vda")
    assert not second.is_full("vdb")
    assert second.is_full("vdc")
    assert 0 < second.disks["vda"].read_bytes <= 3 * MIB
    assert second.disks["vdb"].read_bytes == 0
    third = await site.back_up()
    assert third.disks["vda"].read_bytes == 0
    assert len(site.checkpoints()) == 1
    await site.check()
    assert_at_home(site.domain, site.domain.images())


async def test_only_the_disk_whose_bitmap_is_lost_is_read_in_full(site):
    await site.back_up()
    (checkpoint,) = site.checkpoints()
    site.lose_bitmap("vdb", checkpoint)
    site.write("vda", "write -P 5 2M 1M")
    site.write("vdb", "write -P 6 2M 1M")
    again = await site.back_up()
    assert not again.is_full("vda")
    assert "lost the dirty bitmap" in again.reason("vdb")
    assert checkpoint not in site.checkpoints()
    assert len(site.checkpoints()) == 1
    assert not (await site.back_up()).is_full("vdb")
    await site.check()


async def test_a_checkpoint_that_libvirt_forgot_is_told_to_it_again(site):
    await site.back_up()
    (checkpoint,) = site.checkpoints()
    site.daemon.virsh("checkpoint-delete", site.name, checkpoint, "--metadata")
    site.write("vda", "write -P 5 2M 1M")
    again = await site.back_up()
    assert not again.is_full("vda")
    assert checkpoint not in site.checkpoints()
    assert checkpoint not in site.bitmaps()
    await site.check()


async def test_a_killed_qemu_costs_a_full_read_once(site):
    site.write("vda", "write -P 4 1M 1M")
    await site.back_up()
    site.domain.destroy()  # the bitmap is in the image now
    site.domain.start_paused()
    site.write("vda", "write -P 5 2M 1M")
    assert not (await site.back_up()).is_full("vda")
    site.write("vda", "write -P 6 3M 1M")
    os.kill(site.daemon.guest_pids()[site.name], signal.SIGKILL)
    site.domain.wait_shut_off()
    site.domain.start_paused()
    assert "lost the dirty bitmap" in (await site.back_up()).reason("vda")
    assert not (await site.back_up()).is_full("vda")
    assert len(site.checkpoints()) == 1
    site.domain.destroy()
    assert site.stored_bitmaps("vda") == set(site.checkpoints())
    await site.check()


async def test_a_replaced_image_and_a_new_disk_are_read_in_full(site):
    await site.back_up()
    site.domain.destroy()
    image = site.domain.images(inactive=True)["vda"]
    copy = image.with_name("copy.qcow2")
    shutil.copyfile(image, copy)
    copy.replace(image)
    site.domain.start_paused()
    site.write("vda", "write -P 5 2M 1M")
    again = await site.back_up()
    assert "replaced" in again.reason("vda")
    assert not again.is_full("vdb")
    await site.check()


async def test_a_resized_disk_is_read_in_full(site):
    await site.back_up()
    site.daemon.virsh("blockresize", site.name, "vda", "80M")
    site.write("vda", "write -P 5 70M 1M")
    again = await site.back_up()
    assert again.reason("vda") == "its size changed"
    assert not again.is_full("vdb")
    assert not (await site.back_up()).is_full("vda")
    await site.check()


async def test_foreign_checkpoints_are_left_alone(site):
    words = (site.name, "--diskspec", "vdc,checkpoint=no", "--name")
    site.daemon.virsh("checkpoint-create-as", *words, "theirs")
    await site.back_up()
    site.write("vda", "write -P 5 2M 1M")
    site.daemon.virsh("checkpoint-create-as", *words, "later")
    site.write("vda", "write -P 6 4M 1M")
    assert not (await site.back_up()).is_full("vda")
    site.daemon.virsh("checkpoint-delete", site.name, "theirs")
    assert not (await site.back_up()).is_full("vda")
    assert "later" in site.checkpoints()
    assert len(site.checkpoints()) == 2
    await site.check()


async def test_the_audit_finds_what_a_bitmap_does_not_tell(site):
    site.write("vda", "write -P 1 0 8M")
    await site.back_up()
    (checkpoint,) = site.checkpoints()
    site.config = site.configured(audit_percent=100)
    assert (await site.back_up()).recorder.done.audit_failures == 0
    (checkpoint,) = site.checkpoints()
    site.write("vda", "write -P 9 3M 4k")
    site.clear_bitmap("vda", checkpoint)
    again = await site.back_up()
    assert "audit found changes" in again.reason("vda")
    assert again.recorder.done.audit_failures == 1
    assert any("audit" in event.message for event in again.recorder.of(Warned))
    await site.check()


async def test_what_became_zeros_unnoticed_is_found_without_luck(site):
    site.write("vda", "write -P 1 0 40M")
    await site.back_up()
    (checkpoint,) = site.checkpoints()
    site.config = site.configured(audit_percent=0.001)
    site.write("vda", "discard 20M 1M")
    site.clear_bitmap("vda", checkpoint)
    assert "audit found changes" in (await site.back_up()).reason("vda")
    await site.check()


async def test_a_snapshot_backup_in_between_does_no_harm(site):
    site.write("vda", "write -P 1 0 4M")
    await site.back_up()
    site.config = site.configured(method="snapshot", packager="directory")
    between = On(site.path / "frozen").arm(
        Phase.COPYING, lambda: site.write("vda", "write -P 7 2M 1M")
    )
    assert (await back_up(site.config, between)).done
    site.config = site.configured()
    site.write("vda", "write -P 8 10M 1M")
    assert not (await site.back_up()).is_full("vda")
    await site.check()


async def test_a_damaged_base_costs_a_full_read(site):
    site.write("vda", "write -P 1 0 4M")
    await site.back_up()
    (damaged,) = (site.path / "target" / site.name).glob("*_vda*.map")
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    again = await site.back_up()
    assert "damaged" in again.reason("vda")
    assert not again.is_full("vdb")


async def test_full_every_reads_a_disk_in_full_when_it_is_time(site):
    await site.back_up()
    site.config = site.configured(full_every="1d")
    assert not (await site.back_up()).is_full("vda")
    for path in (site.path / "target" / site.name).glob("*.json"):
        definition = json.loads(path.read_text())
        definition["images"]["vda"]["reading"]["full_date"] -= 24 * 3600
        definition["checksum"] = checksum_of(definition)
        path.write_text(json.dumps(definition))
    again = await site.back_up()
    assert "full_every" in again.reason("vda")
    assert not again.is_full("vdb")


async def test_a_domain_that_is_shut_off_is_incremental_too(site):
    site.write("vda", "write -P 4 1M 1M")
    await site.back_up()
    site.write("vda", "write -P 5 2M 1M", "write -z 1M 512k")
    site.domain.destroy()
    off = await site.back_up()
    assert off.recorder.of(BackupStarted)[0].method == "pull"
    assert 0 < off.disks["vda"].read_bytes <= 2 * MIB
    assert off.disks["vdb"].read_bytes == 0
    assert not (await site.back_up()).is_full("vda")
    site.domain.start_paused()
    site.write("vda", "write -P 6 3M 1M")
    assert not (await site.back_up()).is_full("vda")
    site.domain.destroy()
    assert not (await site.back_up()).is_full("vda")
    await site.check()


async def test_a_first_backup_of_a_domain_that_is_shut_off_goes_through_its_chain(
    daemon, make_domain, tmp_path, monkeypatch
):
    prefix = f"nbd-of-{os.getpid()}-"
    monkeypatch.setattr(qemu_nbd, "_PREFIX", prefix)
    domain = make_domain(DiskSpec("vda", backing=2, fs=None), agent=False, boot=False)
    config = configure(tmp_path, daemon.uri, [domain.name], packager="directory", method="pull")
    image = domain.images()["vda"]
    run("qemu-io", "-f", "qcow2", "-c", "write -P 5 1M 1M", image)
    expected = tmp_path / "expected.raw"
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, expected)
    recorder = await back_up(config, Recorder(tmp_path / "frozen"))
    assert recorder.done.quiesced is None
    restored = await restore(config, domain.name, tmp_path / "restored")
    assert restored.verified
    (found,) = (tmp_path / "restored").glob("*.raw")
    assert filecmp.cmp(expected, found, shallow=False)
    assert not list(Path(tempfile.gettempdir()).glob(f"{prefix}*"))


async def test_a_domain_that_starts_while_it_is_read_is_read_anew(site):
    await site.back_up()
    site.domain.destroy()
    started = On(site.path / "frozen").arm(Phase.COPYING, site.domain.start_paused)
    done = (await back_up(site.config, started)).done
    assert done.quiesced is False
    assert site.domain.state() == "paused"


async def test_a_disk_on_a_snapshot_of_somebody_is_read_in_full(site):
    await site.back_up()
    words = [f"--diskspec={dev},snapshot=no" for dev in ("vdb", "vdc")]
    site.daemon.virsh("snapshot-create-as", site.name, "theirs", "--disk-only", *words)
    site.write("vda", "write -P 5 2M 1M")
    again = await site.back_up()
    assert "it was on" in again.reason("vda")
    assert not again.is_full("vdb")
    site.write("vda", "write -P 6 3M 1M")
    assert not (await site.back_up()).is_full("vda")
    await site.check()


async def test_an_overlay_that_is_committed_without_its_domain_does_no_harm(site):
    site.write("vda", "write -P 1 0 4M")
    await site.back_up()
    site.config = site.configured(method="snapshot", packager="directory")

    def pull_the_plug():
        site.write("vda", "write -P 7 2M 1M")
        site.write("vdb", "write -P 7 8M 1M")
        site.domain.destroy()

    await back_up(site.config, On(site.path / "frozen").arm(Phase.COPYING, pull_the_plug))
    assert_at_home(site.domain, site.domain.images())
    site.config = site.configured()
    site.domain.start_paused()
    await site.back_up()
    await site.check()

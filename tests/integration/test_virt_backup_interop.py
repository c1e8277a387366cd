"""virt-backup 0.5.6 from PyPI, in an environment of its own: each restores what the other wrote."""

import filecmp
import json
import os
import signal
import subprocess

import pytest
import yaml
from anyio import to_thread

from lab.disks import DiskSpec
from lab.domains import define
from recording import Recorder, assert_at_home, back_up, configure, restore
from virt_backup_program import run_virt_backup
from virtbackup_async.engine.clean.clean import run_clean
from virtbackup_async.engine.clean.request import CleanRequest
from virtbackup_async.engine.inventory.listing import list_backups
from virtbackup_async.engine.runtime import open_runtime
from virtbackup_async.events import PendingLeft, PendingUndone

PACKAGERS = {
    "directory": {"packager": "directory"},
    "tar": {"packager": "tar"},
    "tar.gz": {"packager": "tar", "packager_opts": {"compression": "gz", "compression_lvl": 6}},
    "tar.bz2": {"packager": "tar", "packager_opts": {"compression": "bz2"}},
    "tar.xz": {"packager": "tar", "packager_opts": {"compression": "xz", "compression_lvl": 1}},
    "zstd": {"packager": "zstd", "packager_opts": {"compression_lvl": 3}},
}


@pytest.fixture(scope="module")
def domain(daemon_of_the_run):
    """Two disks with data; nobody writes to them but the monitor."""
    daemon_of_the_run.ensure_started()
    disks = [DiskSpec("vda", fs=None), DiskSpec("vdb", "raw", fs=None)]
    domain = define(daemon_of_the_run, "shared-with-virt-backup", disks, agent=False)
    domain.start()
    for dev in ("vda", "vdb"):
        domain.qemu_io(dev, "write -P 9 3M 2M")
        domain.qemu_io(dev, "write -P 5 40M 1M")
    yield domain
    daemon_of_the_run.ensure_started()
    domain.undefine()


def same_files(one, other, names):
    return all(filecmp.cmp(one / name, other / name, shallow=False) for name in names)


@pytest.mark.parametrize("packager", PACKAGERS)
async def test_virt_backup_restores_ours(daemon, virt_backup, domain, packager, tmp_path):
    images = domain.images()
    config = configure(tmp_path, daemon.uri, [domain.name], **PACKAGERS[packager])
    recorder = Recorder(tmp_path / "frozen")
    recorder.watch(domain)
    assert (await back_up(config, recorder)).done
    theirs = tmp_path / "theirs"

    listed = await to_thread.run_sync(run_virt_backup, virt_backup, config.path, "list")
    words = ("restore", "all", domain.name, theirs)
    await to_thread.run_sync(run_virt_backup, virt_backup, config.path, *words)

    assert "1 hosts, 1 backups" in listed
    for dev, frozen in recorder.frozen.items():
        assert filecmp.cmp(frozen, theirs / images[dev].name, shallow=False)
    assert (theirs / f"{domain.name}.xml").exists()


@pytest.mark.parametrize("packager", PACKAGERS)
async def test_we_restore_virt_backups(daemon, virt_backup, domain, packager, tmp_path):
    images = domain.images()
    config = configure(tmp_path, daemon.uri, [domain.name], **PACKAGERS[packager])
    await to_thread.run_sync(run_virt_backup, virt_backup, config.path, "backup")
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    words = ("restore", "all", domain.name, theirs)
    await to_thread.run_sync(run_virt_backup, virt_backup, config.path, *words)

    (listing,) = await list_backups(config, ["all"], [], known_domains=None)
    restored = await restore(config, domain.name, ours)

    assert [len(backups) for backups in listing.backups_by_domain.values()] == [1]
    assert not restored.verified
    assert same_files(ours, theirs, [image.name for image in images.values()])
    assert_at_home(domain, images)


async def test_their_clean_removes_ours(daemon, virt_backup, domain, tmp_path):
    """A definition of ours is one of theirs: their retention takes it for what it is."""
    config = configure(tmp_path, daemon.uri, [domain.name], packager="directory")
    assert (await back_up(config, Recorder(tmp_path / "f"))).done
    settings = yaml.safe_load(config.path.read_text())
    settings["groups"]["all"].update(hourly=0, daily=0, weekly=0, monthly=0, yearly=0)
    config.path.write_text(yaml.safe_dump(settings))
    words = ("clean", "-B", "all")
    said = await to_thread.run_sync(run_virt_backup, virt_backup, config.path, *words)
    assert "Backups removed for group all: 1" in said
    assert [path for path in (tmp_path / "target").rglob("*") if path.is_file()] == []


async def test_what_they_left_when_they_were_killed_is_undone(
    daemon, virt_backup, domain, tmp_path
):
    """No note of this host tells of it: libvirt, the overlay's name and its header do."""
    images = domain.images()
    config = configure(tmp_path, daemon.uri, [domain.name], **PACKAGERS["tar.xz"])
    command = [virt_backup, "-c", config.path, "backup"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        await to_thread.run_sync(stop_with_pending_file, process, tmp_path / "target")
    finally:
        process.kill()
        process.wait()
    assert all(domain.images()[dev] != image for dev, image in images.items())
    domain.qemu_io("vda", "write -P 7 44M 1M")
    events = Recorder(tmp_path / "unused")
    async with open_runtime(config, events) as runtime:
        await run_clean(runtime, CleanRequest(complete=False))
    assert not events.of(PendingLeft)
    assert len(events.of(PendingUndone)) == 1
    assert_at_home(domain, images)
    assert [path for path in (tmp_path / "target").rglob("*") if path.is_file()] == []


def stop_with_pending_file(process, target):
    """Stop the process for good as soon as it has written down what it is at."""
    while True:
        assert process.poll() is None, "it ended before"
        if any(map(tells_of_disks, target.rglob("*.pending"))):
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            # It may have begun to write the file anew in the meantime.
            if any(map(tells_of_disks, target.rglob("*.pending"))):
                return
            process.send_signal(signal.SIGCONT)


def tells_of_disks(pending):
    try:
        return bool(json.loads(pending.read_bytes()).get("disks"))
    except ValueError:
        return False  # it is being written

"""Full disks, lost daemons, failed block jobs: one error, nothing half-made, the guest at home."""

import os
import subprocess

import pytest

from lab.disks import DiskSpec
from lab.domains import define
from recording import On, Recorder, assert_at_home, back_up, configure, leftovers
from virtbackup_async.events import Phase

MIB = 1 << 20


@pytest.fixture
def busy(daemon, request):
    """A running domain with data on its disk."""
    domain = define(
        daemon, request.node.name[-40:], [DiskSpec("vda", format="raw", fs=None)], agent=False
    )
    domain.start()
    domain.qemu_io("vda", "write -P 5 1M 12M")
    yield domain
    domain.undefine()


@pytest.fixture
def small(tmp_path):
    """A file system of 8 MiB."""
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", mount], check=True)
    yield mount
    subprocess.run(["umount", mount], check=True)


@pytest.mark.parametrize("packager", ["directory", "tar"])
async def test_a_full_target_leaves_nothing(daemon, busy, small, tmp_path, packager):
    images = busy.images()
    config = configure(tmp_path, daemon.uri, [busy.name], target=str(small), packager=packager)
    recorder = await back_up(config, Recorder(tmp_path / "f"))
    assert recorder.failed.exit_code == 22
    assert "full" in recorder.failed.error
    assert not recorder.failed.left_pending
    assert_at_home(busy, images)
    assert [path for path in small.rglob("*") if path.is_file()] == []


async def test_a_missing_target_is_said_before_anything_is_touched(daemon, busy, tmp_path):
    config = configure(tmp_path, daemon.uri, [busy.name], target=str(tmp_path / "unmounted"))
    recorder = await back_up(config, Recorder(tmp_path / "f"))
    assert recorder.failed.exit_code == 22
    assert str(tmp_path / "unmounted") in recorder.failed.error
    assert not (tmp_path / "unmounted").exists()


async def test_libvirt_restarting_during_the_copy_does_not_hurt(daemon, busy, tmp_path):
    images = busy.images()

    def restart():
        daemon.kill()
        daemon.start()

    recorder = On(tmp_path / "f").arm(Phase.COPYING, restart)
    recorder = await back_up(configure(tmp_path, daemon.uri, [busy.name]), recorder)
    assert recorder.done
    assert_at_home(busy, images)
    assert leftovers(tmp_path) == []


async def test_libvirt_restarting_while_a_shut_off_domain_is_copied(daemon, tmp_path):
    domain = define(daemon, "at-rest", [DiskSpec("vda", "raw", fs=None)], agent=False)
    try:

        def restart():
            daemon.kill()
            daemon.start()

        recorder = On(tmp_path / "f").arm(Phase.COPYING, restart)
        recorder = await back_up(configure(tmp_path, daemon.uri, [domain.name]), recorder)
        assert recorder.done.quiesced is None
        assert leftovers(tmp_path) == []
    finally:
        domain.undefine()


async def test_libvirt_gone_for_good_keeps_the_pending_file(daemon, busy, tmp_path, monkeypatch):
    monkeypatch.setattr("virtbackup_async.engine.undo.reconnect.RECONNECT_TIMEOUT_S", 0.1)
    monkeypatch.setattr("virtbackup_async.engine.undo.reconnect.RECONNECT_INTERVAL_S", 0.05)
    recorder = On(tmp_path / "f").arm(Phase.COPYING, daemon.kill)
    try:
        recorder = await back_up(configure(tmp_path, daemon.uri, [busy.name]), recorder)
    finally:
        daemon.start()
    assert recorder.failed.exit_code == 14
    assert recorder.failed.left_pending
    assert busy.state() == "running"
    assert [path.suffix for path in leftovers(tmp_path / "target")] == [".pending"]
    (overlay,) = leftovers(daemon.images)
    assert busy.images()["vda"] == overlay

    # The next backup of the domain first undoes what the last one left.
    second = await back_up(configure(tmp_path, daemon.uri, [busy.name]), Recorder(tmp_path / "g"))
    assert second.done
    assert leftovers(tmp_path) == []
    assert leftovers(daemon.images) == []


async def test_a_block_job_that_fails_is_an_error_and_loses_nothing(daemon, small, tmp_path):
    """The image's own storage is full, so the commit into it cannot succeed."""
    domain = define(daemon, "full-base", [DiskSpec("vda", format="raw", fs=None)], agent=False)
    image = domain.images()["vda"]
    moved = small / image.name
    image.unlink()
    moved.touch()
    os.truncate(moved, 64 * MIB)
    image.symlink_to(moved)
    filler = small / "filler"
    try:
        domain.start()

        def fill():
            domain.qemu_io("vda", "write -P 3 20M 4M")
            filler.write_bytes(b"x" * (7 * MIB + 512 * 1024))

        recorder = On(tmp_path / "f").arm(Phase.COPYING, fill)
        recorder = await back_up(configure(tmp_path, daemon.uri, [domain.name]), recorder)
        assert recorder.failed.exit_code == 14
        assert "block job failed" in recorder.failed.error
        assert domain.state() == "running"

        filler.unlink()
        second = await back_up(
            configure(tmp_path, daemon.uri, [domain.name]), Recorder(tmp_path / "g")
        )
        assert second.done
        assert domain.images()["vda"] == image
        assert leftovers(tmp_path) == []
        assert moved.read_bytes()[20 * MIB : 24 * MIB] == b"\x03" * (4 * MIB)
    finally:
        domain.undefine()

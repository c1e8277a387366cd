"""``backup --dry-run`` on real QEMU: it says what the backup then does, and touches nothing."""

import pytest

from incremental_site import MIB, IncrementalSite
from virtbackup_async.engine.backup.preview import run_preview
from virtbackup_async.engine.backup.session import BackupRequest
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.hypervisor import open_hypervisor


@pytest.fixture
def site(daemon, make_domain, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(daemon.path / "c"))
    return IncrementalSite(daemon, make_domain, tmp_path)


async def preview(site):
    """What each disk's backup would be; nothing that QEMU, libvirt and the target have changes."""

    def state():
        files = {path: path.stat().st_mtime_ns for path in (site.path / "target").rglob("*")}
        return files, site.checkpoints(), site.bitmaps(), site.domain.images()

    before = state()
    async with open_hypervisor(site.config.uri) as hypervisor:
        runtime = Runtime(site.config, print, hypervisor)
        found = await run_preview(runtime, BackupRequest())
    assert state() == before
    assert not found.failed
    (target,) = found.targets
    assert (target.target, target.fits) == (str(site.path / "target"), True)
    return {disk.disk: disk for disk in found.disks}


async def test_the_backup_then_does_what_was_said(site):
    site.write("vda", "write -P 1 0 8M")
    planned = await preview(site)
    assert 8 * MIB <= planned["vda"].read_bytes < 9 * MIB
    first = await site.back_up()
    for dev in ("vda", "vdb", "vdc"):
        assert not planned[dev].incremental
        assert planned[dev].reason == first.reason(dev)

    site.write("vda", "write -P 9 3M 1M")
    planned = await preview(site)
    again = await site.back_up()
    assert planned["vda"].incremental
    assert planned["vda"].base == again.disks["vda"].base
    assert MIB <= again.disks["vda"].read_bytes <= planned["vda"].read_bytes <= 2 * MIB
    assert (planned["vdb"].incremental, planned["vdb"].read_bytes) == (True, 0)
    assert planned["vdc"].reason == again.reason("vdc")
    await site.check()


async def test_a_bitmap_that_is_lost_is_no_surprise(site):
    await site.back_up()
    (checkpoint,) = site.checkpoints()
    site.lose_bitmap("vdb", checkpoint)
    planned = await preview(site)
    assert "lost the dirty bitmap" in planned["vdb"].reason
    site.daemon.virsh("checkpoint-delete", site.name, checkpoint, "--metadata")
    planned = await preview(site)
    assert "libvirt alone did" in planned["vda"].reason

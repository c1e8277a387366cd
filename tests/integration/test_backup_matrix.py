"""Every packager, on a running and on a shut-off domain, with a qcow2 and a raw disk each."""

import filecmp

import anyio
import pytest
from anyio import to_thread

from lab.disks import DiskSpec
from lab.domains import define, running
from lab.process import run
from recording import Recorder, assert_at_home, back_up, configure, leftovers, restore

PACKAGERS = {
    "directory": {"packager": "directory"},
    "tar": {"packager": "tar"},
    "tar.gz": {"packager": "tar", "packager_opts": {"compression": "gz", "compression_lvl": 6}},
    "tar.bz2": {"packager": "tar", "packager_opts": {"compression": "bz2"}},
    "tar.xz": {"packager": "tar", "packager_opts": {"compression": "xz", "compression_lvl": 1}},
    "zstd": {"packager": "zstd", "packager_opts": {"compression_lvl": 3}},
    "repository": {"packager": "repository", "method": "snapshot"},
}
TWO_DISKS = [DiskSpec("vda"), DiskSpec("vdb", "raw", fs=None), DiskSpec("hdc", kind="cdrom")]


@pytest.fixture(scope="module")
def live(daemon_of_the_run):
    """A guest that writes to its first disk all the time."""
    daemon_of_the_run.ensure_started()
    with running(daemon_of_the_run, "live", TWO_DISKS, writer="vda") as domain:
        yield domain


@pytest.fixture(scope="module")
def shut_off(daemon_of_the_run):
    daemon_of_the_run.ensure_started()
    domain = define(daemon_of_the_run, "shut-off", TWO_DISKS)
    yield domain
    domain.undefine()


def written(domain):
    return int(domain.guest_exec("wc -l < /mnt/vda/writer.log"))


@pytest.mark.parametrize("packager", PACKAGERS)
async def test_a_running_domain_restores_byte_for_byte(live, packager, tmp_path):
    images = live.images()
    config = configure(tmp_path, live.root.uri, ["live"], quiesce=True, **PACKAGERS[packager])
    recorder = Recorder(tmp_path / "frozen")
    recorder.watch(live)
    live.qemu_io("vdb", "write -P 9 5M 128k")
    lines = written(live)

    done = (await back_up(config, recorder)).done
    restored = await restore(config, "live", tmp_path / "restored")

    assert done.quiesced
    assert done.frozen_ms > 0
    assert restored.verified
    assert set(recorder.frozen) == {"vda", "vdb"}
    for dev, frozen in recorder.frozen.items():
        assert filecmp.cmp(frozen, tmp_path / "restored" / images[dev].name, shallow=False)
    check = tmp_path / "vda.raw"
    run("qemu-img", "convert", tmp_path / "restored" / images["vda"].name, "-O", "raw", check)
    run("e2fsck", "-fn", check)
    assert_at_home(live, images)
    assert leftovers(tmp_path) == []
    with anyio.fail_after(30):
        while await to_thread.run_sync(written, live) <= lines:
            await anyio.sleep(0.01)


@pytest.mark.parametrize("packager", PACKAGERS)
async def test_a_shut_off_domain_restores_byte_for_byte(shut_off, packager, tmp_path):
    images = shut_off.images()
    config = configure(tmp_path, shut_off.root.uri, ["shut-off"], **PACKAGERS[packager])
    before = {dev: path.stat() for dev, path in images.items()}

    done = (await back_up(config, Recorder(tmp_path / "frozen"))).done
    await restore(config, "shut-off", tmp_path / "restored")

    assert done.quiesced is None
    for dev in ("vda", "vdb"):
        restored = tmp_path / "restored" / images[dev].name
        assert filecmp.cmp(images[dev], restored, shallow=False)
        assert images[dev].stat().st_mtime_ns == before[dev].st_mtime_ns
        assert restored.stat().st_blocks <= images[dev].stat().st_blocks + 64
    assert_at_home(shut_off, images)
    assert leftovers(tmp_path) == []

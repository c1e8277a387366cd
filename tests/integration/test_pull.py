"""Pull-mode backups on real QEMU: the guest stays on its disks, the bytes are as at the start."""

import filecmp
import random
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path

import anyio
import pytest
from anyio import to_thread

from fakes.nbd_servers import qemu_nbd
from lab.disks import DiskSpec
from lab.domains import running
from lab.process import LabError, run
from recording import (
    Recorder,
    assert_at_home,
    back_up,
    configure,
    guest_visible,
    leftovers,
    restore,
)
from virtbackup_async.events import BackupStarted, Phase, PhaseChanged, Warned

PACKAGERS = {
    "directory": {"packager": "directory"},
    "tar": {"packager": "tar"},
    "tar.gz": {"packager": "tar", "packager_opts": {"compression": "gz", "compression_lvl": 6}},
    "zstd": {"packager": "zstd", "packager_opts": {"compression_lvl": 3}},
}
DISKS = [
    DiskSpec("vda"),
    DiskSpec("vdb", "raw", fs=None),
    DiskSpec("vdc", backing=1, fs=None),
    DiskSpec("hdd", kind="cdrom"),
]


@pytest.fixture(scope="module")
def live(daemon_of_the_run):
    """A guest that writes to its first disk all the time."""
    daemon_of_the_run.ensure_started()
    with running(daemon_of_the_run, "pulled", DISKS, writer="vda") as domain:
        yield domain


class Meddling(Recorder):
    """When the copy begins, the guest goes on, and its disks are written to all over."""

    def __init__(self, directory, domain):
        super().__init__(directory)
        self.domain = domain
        self.seen = {}

    def __call__(self, event):
        super().__call__(event)
        begins = isinstance(event, PhaseChanged) and event.phase is Phase.COPYING
        if begins and event.disk is None:
            self.seen = self.domain.images()
            for dev in ("vdb", "vdc"):
                for command in ("write -P 9 0 8M", "discard 20M 4M", "write -z 30M 2M", "flush"):
                    self.domain.qemu_io(dev, command)
            self.domain.root.virsh("resume", self.domain.name)


def written(domain):
    return int(domain.guest_exec("wc -l < /mnt/vda/writer.log"))


@pytest.mark.parametrize("packager", PACKAGERS)
async def test_the_backup_is_the_disk_at_its_beginning(live, packager, tmp_path):
    images = live.images()
    for dev in ("vdb", "vdc"):
        live.qemu_io(dev, "write -P 7 1M 40M")
        live.qemu_io(dev, "flush")
    config = configure(tmp_path, live.root.uri, ["pulled"], method="pull", **PACKAGERS[packager])
    live.root.virsh("suspend", live.name)
    expected = guest_visible(live, tmp_path / "expected")
    recorder = Meddling(tmp_path / "frozen", live)

    done = (await back_up(config, recorder)).done
    restored = await restore(config, "pulled", tmp_path / "restored")

    assert recorder.of(BackupStarted)[0].method == "pull"
    assert recorder.seen == images
    assert done.quiesced is False
    assert restored.verified
    for dev in ("vda", "vdb", "vdc"):
        reference = expected[dev]
        (found,) = (tmp_path / "restored").glob(f"*{images[dev].stem}*.raw")
        assert filecmp.cmp(reference, found, shallow=False), dev
    assert_at_home(live, images)
    assert leftovers(tmp_path) == []


async def test_a_quiesced_guest_is_thawed_and_its_file_system_clean(live, tmp_path):
    images = live.images()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    config = configure(
        tmp_path, live.root.uri, ["pulled"], method="pull", scratch=str(scratch), quiesce=True,
        packager="directory",
    )  # fmt: skip
    lines = written(live)
    recorder = await back_up(config, Recorder(tmp_path / "frozen"))
    done = recorder.done
    assert done.quiesced
    assert done.frozen_ms > 0
    await restore(config, "pulled", tmp_path / "restored")
    (found,) = (tmp_path / "restored").glob(f"*{images['vda'].stem}*.raw")
    run("e2fsck", "-fn", found)
    assert live.agent("guest-fsfreeze-status") == "thawed"
    assert_at_home(live, images)
    assert list(scratch.iterdir()) == []
    with anyio.fail_after(30):
        while await to_thread.run_sync(written, live) <= lines:
            await anyio.sleep(0.01)


NETWORK_DISK = """<disk type='network' device='disk'><driver name='qemu' type='raw'/>
  <source protocol='nbd' name='remote'><host transport='unix' socket='{}'/></source>
  <target dev='vdx' bus='virtio'/></disk>"""
BLOCK_DISK = """<disk type='block' device='disk'><driver name='qemu' type='raw'/>
  <source dev='{}'/><target dev='vdx' bus='virtio'/></disk>"""


@contextmanager
def plugged(domain, directory, content, kind):
    """A disk that is no file, plugged into the running guest."""
    description = directory / "vdx.xml"
    with ExitStack() as stack:
        if kind == "network":
            short = stack.enter_context(tempfile.TemporaryDirectory(dir=domain.root.path))
            serving = qemu_nbd(Path(short), content, "--export-name", "remote")
            description.write_text(NETWORK_DISK.format(stack.enter_context(serving)))
        else:
            device = loop_device(content)
            stack.callback(run, "losetup", "--detach", device)
            description.write_text(BLOCK_DISK.format(device))
        domain.root.virsh("attach-device", domain.name, description, "--live")
        try:
            yield
        finally:
            domain.root.virsh("detach-device", domain.name, description, "--live")


def loop_device(content):
    try:
        return run("losetup", "--find", "--show", content).strip()
    except LabError as error:
        pytest.skip(f"no loop device here: {error}")


@pytest.fixture
def content(tmp_path):
    path = tmp_path / "remote.img"
    path.write_bytes(random.Random(3).randbytes(3 << 20) + bytes(5 << 20))
    return path


@pytest.mark.parametrize(("method", "kind"), [("pull", "network"), ("auto", "block")])
async def test_a_disk_that_is_no_file_is_pulled(live, content, method, kind, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    hosts = [{"host": live.name, "disks": ["vdx"]}]
    options = {"method": method, "scratch": str(scratch), "packager": "directory"}
    config = configure(tmp_path, live.root.uri, hosts, **options)
    with plugged(live, tmp_path, content, kind):
        assert (await back_up(config, Recorder(tmp_path / "frozen"))).done
    await restore(config, live.name, tmp_path / "restored")
    (found,) = (tmp_path / "restored").glob("*.raw")
    assert found.read_bytes() == content.read_bytes()
    assert list(scratch.iterdir()) == []


async def test_a_network_disk_without_scratch_says_what_to_do(live, content, tmp_path):
    hosts = [{"host": live.name, "disks": ["vdx"]}]
    config = configure(tmp_path, live.root.uri, hosts, method="pull")
    with plugged(live, tmp_path, content, "network"):
        failed = (await back_up(config, Recorder(tmp_path / "frozen"))).failed
    assert "vdx is a network disk" in failed.error
    assert "Set `scratch`" in failed.error
    assert leftovers(tmp_path) == []


async def test_a_domain_that_is_destroyed_is_read_from_its_disks_at_rest(live, tmp_path):
    """The job went with it: the backup starts over, and nothing of the first try is left."""
    config = configure(tmp_path, live.root.uri, [live.name], method="pull", packager="directory")
    images = live.images()

    class Destroying(Recorder):
        def __call__(self, event):
            super().__call__(event)
            is_copying = isinstance(event, PhaseChanged) and event.phase is Phase.COPYING
            if is_copying and not event.disk and live.state() == "running":
                live.destroy()

    recorder = await back_up(config, Destroying(tmp_path / "frozen"))
    assert recorder.done.quiesced is None
    assert "it was shut off during its backup: starting over" in recorder.of(Warned)[0].message
    assert live.state() == "shut off"
    assert_at_home(live, images)
    assert leftovers(tmp_path) == []
    expected = guest_visible(live, tmp_path / "expected")
    await restore(config, live.name, tmp_path / "restored")
    for dev in ("vda", "vdb", "vdc"):
        (found,) = (tmp_path / "restored").glob(f"*{images[dev].stem}*.raw")
        assert filecmp.cmp(expected[dev], found, shallow=False), dev

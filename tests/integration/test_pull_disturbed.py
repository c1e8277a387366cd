"""What others do to a domain while it is pulled: the guest runs on, and what is said is true."""

import filecmp
import subprocess
from contextlib import suppress

import pytest

from lab.disks import DiskSpec
from lab.domains import running
from lab.process import LabError
from recording import (
    Recorder,
    assert_at_home,
    back_up,
    configure,
    guest_visible,
    leftovers,
    restore,
)
from virtbackup_async.events import DiskProgress

DISKS = [DiskSpec("vda"), DiskSpec("vdb", "raw", fs=None)]


@pytest.fixture(scope="module")
def guest(daemon_of_the_run):
    daemon_of_the_run.ensure_started()
    with running(daemon_of_the_run, "disturbed", DISKS, writer="vda") as domain:
        yield domain


@pytest.fixture
def live(guest):
    """Runs, with something on its second disk; afterwards it has no job, and is on its images."""
    guest.root.ensure_started()
    guest.qemu_io("vdb", "write -f -P 5 0 24M")
    images = guest.images()
    yield guest
    assert_at_home(guest, images)
    assert list(guest.root.path.rglob("vbk-*.sock")) == []


class Disturbing(Recorder):
    """Does something once, in the middle of the copy."""

    def __init__(self, directory, disturb):
        super().__init__(directory)
        self._disturb = disturb

    def __call__(self, event):
        super().__call__(event)
        if isinstance(event, DiskProgress) and self._disturb:
            disturb, self._disturb = self._disturb, None
            disturb()


def pull_of(live, directory, **options):
    options = {"method": "pull", "packager": "repository", **options}
    return configure(directory, live.root.uri, [live.name], **options)


async def disturbed(live, directory, disturb, **options):
    """The events of a backup that was disturbed; nothing of it is left beside a whole one."""
    recorder = await back_up(
        pull_of(live, directory, **options), Disturbing(directory / "still", disturb)
    )
    assert not recorder._disturb
    assert leftovers(directory) == []
    return recorder


async def assert_restores(live, directory, expected):
    await restore(pull_of(live, directory), live.name, directory / "restored")
    for dev, image in live.images().items():
        restored = directory / "restored" / image.with_suffix(".raw").name
        assert filecmp.cmp(expected[dev], restored, shallow=False), dev


async def test_the_job_of_somebody_else_is_left_alone(live, tmp_path):
    xml = tmp_path / "job.xml"
    socket = live.root.path / "other.sock"
    xml.write_text(
        f"<domainbackup mode='pull'><server transport='unix' socket='{socket}'/></domainbackup>"
    )
    live.root.virsh("backup-begin", live.name, xml)
    try:
        config = pull_of(live, tmp_path, quiesce=True)
        failed = (await back_up(config, Recorder(tmp_path / "still"))).failed
        assert "another backup job" in failed.error
        assert str(socket) in live.root.virsh("backup-dumpxml", live.name)
        assert live.agent("guest-fsfreeze-status") == "thawed"
    finally:
        live.abort_job()
    assert leftovers(tmp_path) == []


async def test_libvirt_restarts(live, tmp_path):
    def restart():
        live.root.kill()
        live.root.start()
        live.root.virsh("resume", live.name)

    live.root.virsh("suspend", live.name)
    expected = guest_visible(live, tmp_path / "expected")
    assert (await disturbed(live, tmp_path, restart)).done
    assert live.state() == "running"
    await assert_restores(live, tmp_path, expected)


async def test_an_admin_suspends_the_guest(live, tmp_path):
    def suspend():
        live.root.virsh("suspend", live.name)

    try:
        assert (await disturbed(live, tmp_path, suspend)).done
        assert live.state() == "paused"
    finally:
        live.root.virsh("resume", live.name)


async def test_an_admin_ends_the_job(live, tmp_path):
    def abort():
        live.root.virsh("domjobabort", live.name)

    failed = (await disturbed(live, tmp_path, abort)).failed
    assert failed.exit_code == 20
    assert live.state() == "running"


@pytest.fixture
def small(live):
    """A file system for scratch images that has room for almost nothing."""
    place = live.root.path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)
    place.rmdir()


async def test_scratch_images_find_no_room(live, small, tmp_path):
    def fill():
        with suppress(OSError), (small / "filler").open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        live.wait_paused()

    recorder = await disturbed(live, tmp_path, fill, scratch=str(small), rate_limit="1M")

    assert "no room for scratch" in recorder.failed.error
    assert "Set `scratch`" in recorder.failed.error
    assert live.state() == "running"
    assert [path.name for path in small.iterdir()] == ["filler"]
    written = live.guest_exec("wc -l </mnt/vda/writer.log; echo done >/mnt/vda/after; sync")
    assert int(written) > 0


async def test_scratch_images_find_no_room_from_the_start(live, small, tmp_path):
    with suppress(OSError), (small / "filler").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    config = pull_of(live, tmp_path, scratch=str(small), quiesce=True)
    failed = (await back_up(config, Recorder(tmp_path / "still"))).failed
    assert f"no room for the scratch image {small}/" in failed.error
    assert "Set `scratch`" in failed.error
    assert live.agent("guest-fsfreeze-status") == "thawed"
    assert leftovers(tmp_path) == []


async def test_its_disks_cannot_be_changed_meanwhile(live, tmp_path):
    def change():
        for words in (
            ("blockresize", live.name, "vdb", "80M"),
            ("detach-disk", live.name, "vdb", "--live"),
        ):
            with pytest.raises(LabError, match=r"in use|block job|busy"):
                live.root.virsh(*words)

    assert (await disturbed(live, tmp_path, change)).done

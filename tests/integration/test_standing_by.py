"""A guest that powers itself off while it is pulled, and what else happens to it then.

From libvirt 11.10 on it stands by, paused, until its disks are read, and is shut off when the job
ends; before, the job goes with it, and the backup starts over from the disks at rest.
"""

import filecmp
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from e2e.command import events, read_until, start, virtbackup, write_config
from lab.disks import DiskSpec
from lab.domains import LabDomain, define
from lab.libvirt_root import installed_version
from recording import (
    Recorder,
    assert_at_home,
    back_up,
    configure,
    guest_visible,
    leftovers,
    restore,
)
from virtbackup_async.events import DiskProgress, Warned

STANDS_BY = installed_version() >= (11, 10)
DISKS = [DiskSpec("vda", fs=None), DiskSpec("vdb", "raw", fs=None)]
PULL = {"method": "pull", "packager": "repository", "rate_limit": "2M", "audit_percent": 0}


@pytest.fixture(scope="module")
def guest(daemon_of_the_run):
    daemon_of_the_run.ensure_started()
    domain = define(daemon_of_the_run, "standing-by", DISKS)
    yield domain
    domain.undefine()


@pytest.fixture
def live(guest):
    """Runs, with something on its disks; afterwards it has no job, and is on its images."""
    guest.root.ensure_started()
    images = guest.images(inactive=True)
    guest.start()
    try:
        guest.wait_booted()
        for dev in images:
            guest.qemu_io(dev, "write -f -P 5 0 6M")
        yield guest
    finally:
        guest.destroy()
    assert_at_home(guest, images)
    assert list(guest.root.path.rglob("vbk-*.sock")) == []


class AfterPowerOff(Recorder):
    """Lets the guest power itself off in the middle of the copy, and does something to it then."""

    def __init__(self, live, directory, act):
        super().__init__(directory)
        self._live = live
        self._act = act
        self.is_waiting = True

    def __call__(self, event):
        super().__call__(event)
        if isinstance(event, DiskProgress) and self.is_waiting:
            self.is_waiting = False
            power_off(self._live)
            self._act(self._live)


def power_off(live):
    live.root.virsh("shutdown", live.name, "--mode", "acpi")
    if STANDS_BY:
        live.wait_paused()
        assert reason(live) == "paused (shutting down)"


def reason(live):
    return live.root.virsh("domstate", "--reason", live.name).strip()


def restart_libvirt(live):
    live.root.kill()
    live.root.start()


def resume(live):
    """It boots again, and writes."""
    live.root.virsh("resume", live.name)
    for dev in ("vda", "vdb"):
        live.qemu_io(dev, "write -f -P 6 1M 2M")


def abort(live):
    live.root.virsh("domjobabort", live.name)


@dataclass(frozen=True)
class Meanwhile:
    """What happens after it has powered itself off, and what comes of it."""

    act: Callable[[LabDomain], None]
    starts_over: bool = False
    state: str = "shut off (shutdown)"


MEANWHILE = {"nothing": Meanwhile(lambda _live: None, starts_over=not STANDS_BY)}
if STANDS_BY:
    MEANWHILE |= {
        "libvirtd restarts": Meanwhile(restart_libvirt),
        "an admin resumes it": Meanwhile(resume, state="running (unpaused)"),
        "an admin destroys it": Meanwhile(LabDomain.destroy, True, "shut off (destroyed)"),
        "an admin ends the job": Meanwhile(abort, True),
    }


@pytest.mark.parametrize("meanwhile", MEANWHILE.values(), ids=MEANWHILE)
async def test_a_backup_survives_that_the_guest_powers_itself_off(live, meanwhile, tmp_path):
    config = configure(tmp_path, live.root.uri, [live.name], **PULL)
    expected = guest_visible(live, tmp_path / "expected")

    recorder = await back_up(config, AfterPowerOff(live, tmp_path / "still", meanwhile.act))

    assert recorder.done
    assert not recorder.is_waiting
    assert leftovers(tmp_path) == []
    assert reason(live) == meanwhile.state
    said = [event.message for event in recorder.of(Warned)]
    assert len(said) == meanwhile.starts_over
    assert all("it was shut off during its backup: starting over" in message for message in said)
    # A guest at rest needs no quiescing.
    assert recorder.done.quiesced is (None if meanwhile.starts_over else False)
    await restore(config, live.name, tmp_path / "restored")
    for dev, image in live.images().items():
        restored = tmp_path / "restored" / image.with_suffix(".raw").name
        assert filecmp.cmp(expected[dev], restored, shallow=False), dev


ENDS = {"loses its power": LabDomain.destroy}
if STANDS_BY:
    ENDS |= {"powers itself off": power_off}


@pytest.mark.parametrize("end", ENDS)
def test_a_backup_that_is_killed_then_is_undone(live, end, tmp_path):
    config = write_config(tmp_path, live.root.uri, [live.name], **PULL)
    before = virtbackup("-c", config, "backup")
    assert before.returncode == 0, before.stderr
    live.qemu_io("vda", "write -f -P 6 1M 4M")
    backup = start("-c", config, "backup", "--json")
    read_until(backup, "disk_progress")
    ENDS[end](live)
    backup.kill()
    backup.communicate()
    assert live.state() == ("paused" if end == "powers itself off" else "shut off")

    cleaned = virtbackup("-c", config, "clean", "-b")

    assert cleaned.returncode == 0, cleaned.stderr
    live.wait_shut_off()
    again = virtbackup("-c", config, "backup", "--json")
    assert again.returncode == 0, again.stderr
    (disk,) = [e for e in events(again.stdout) if e["event"] == "disk_done" and e["disk"] == "vda"]
    # QEMU kept its bitmaps as it ended.
    assert disk["read_bytes"] == 4 << 20
    verified = virtbackup("-c", config, "verify")
    assert verified.returncode == 0, verified.stderr
    assert leftovers(tmp_path) == []

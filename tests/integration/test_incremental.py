"""Incremental backups on real QEMU: each one restores byte for byte, whatever happened between."""

import filecmp

import pytest

from lab.disks import DiskSpec
from lab.process import run
from recording import Recorder, assert_at_home, back_up, configure, leftovers, restore
from virtbackup_async.events import DiskDone

MIB = 1 << 20


@pytest.fixture
def site(daemon, make_domain, tmp_path, monkeypatch):
    # Without an agent's channel the job's socket goes where the daemon has a directory for QEMU.
    monkeypatch.setenv("XDG_CONFIG_HOME", str(daemon.path / "c"))
    return Site(daemon, make_domain, tmp_path)


class Site:
    """A domain that never runs: its disks are written to as its guest would."""

    def __init__(self, daemon, make_domain, tmp_path):
        disks = [
            DiskSpec("vda", fs=None),
            DiskSpec("vdb", fs=None),
            DiskSpec("vdc", "raw", fs=None),
        ]
        self.daemon = daemon
        self.domain = make_domain(*disks, agent=False, boot=False)
        self.name = self.domain.name
        self.path = tmp_path
        self.config = self.configured()
        self.domain.start_paused()
        self.backups = {}

    def configured(self, **options):
        options = {"packager": "repository", "audit_percent": 0, **options}
        return configure(self.path, self.daemon.uri, [self.name], **options)

    def write(self, dev, *commands):
        for command in commands:
            self.domain.qemu_io(dev, command)
        self.domain.qemu_io(dev, "flush")

    async def back_up(self):
        """Back up; return by dev how each disk was read, and remember what was on them."""
        recorder = await back_up(self.config, Recorder(self.path / "frozen"))
        name = recorder.done.backup
        reference = self.path / "references" / name
        reference.mkdir(parents=True)
        for dev, image in self.domain.images().items():
            kind = image.suffix[1:]
            run("qemu-img", "convert", "-U", "-f", kind, "-O", "raw", image, reference / dev)
        self.backups[name] = reference
        assert leftovers(self.path) == []
        return Read(recorder, {event.disk: event for event in recorder.of(DiskDone)})

    async def check(self):
        """Restore every backup, and compare it with what was on the disks then."""
        for name, reference in self.backups.items():
            place = self.path / "restored" / name
            restored = await restore(self.config, self.name, place, date=name)
            assert restored.verified
            for expected in reference.iterdir():
                (found,) = place.glob(f"*-{expected.name}*raw")
                assert filecmp.cmp(expected, found, shallow=False), f"{name} {expected.name}"
            for path in place.iterdir():
                path.unlink()

    def checkpoints(self):
        return self.daemon.virsh("checkpoint-list", self.name, "--name").split()


class Read:
    """How the disks were read."""

    def __init__(self, recorder, disks):
        self.recorder = recorder
        self.disks = disks

    def is_full(self, dev):
        return self.disks[dev].base is None

    def reason(self, dev):
        return self.disks[dev].reason


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

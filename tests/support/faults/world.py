"""Where faults happen: one libvirt, four domains on it, and what must be true of them afterwards.

::

    live      a guest that writes lines to vda (qcow2, ext4) all the time, with an agent; vdb is raw
    plain     runs without an agent: it may be destroyed and started again
    at-rest   shut off
    uefi      has flash memory and one disk; it is started when it is first backed up

They are shared by all faults of a run; a domain that a failed one leaves behind is made anew.
Called by ``runs.py``; opened by ``tests/crash`` and ``scripts/update-crash-table``.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from lab.disks import DiskSpec
from lab.domains import LabDomain, define, make_nvram, running
from lab.libvirt_root import Daemon
from lab.process import run

MIB = 1 << 20
DISKS = (DiskSpec("vda"), DiskSpec("vdb", "raw", fs=None))
_LONG_AGO_S = 7200


@dataclass
class World:
    """The lab that all faults of a run share."""

    daemon: Daemon
    live: LabDomain
    plain: LabDomain
    at_rest: LabDomain
    uefi: LabDomain
    files: dict[str, dict[str, Path]] = field(default_factory=dict)
    written: dict[tuple[str, int], bytes] = field(default_factory=dict)
    turn: int = 0
    live_is_suspended: bool = False

    def __post_init__(self) -> None:
        self.scratch = self.daemon.path / "scratch"
        self.scratch.mkdir()
        for domain in (self.live, self.plain, self.at_rest, self.uefi):
            self.files[domain.name] = domain.files(inactive=True)
            description = self.daemon.virsh("dumpxml", "--inactive", domain.name)
            self._description(domain).write_text(description)

    @contextlib.contextmanager
    def mended(self, domain: LabDomain) -> Iterator[None]:
        """Where a test fails inside, make the domain anew, for the next test."""
        try:
            yield
        except BaseException:
            self._make_anew(domain)
            raise

    def _make_anew(self, domain: LabDomain) -> None:
        self.daemon.ensure_started()
        domain.undefine()
        self.written.clear()
        strays = set(self.daemon.images.iterdir()) - self._known()
        for stray in (*strays, *self.scratch.iterdir()):
            stray.unlink()
        if domain is self.uefi:
            make_nvram(self.files[domain.name]["nvram"])
        self.daemon.virsh("define", self._description(domain))
        if domain in (self.live, self.plain):
            domain.start()
        if domain is self.live:
            domain.wait_booted()
            self.live_is_suspended = False

    def make_room(self, domain: LabDomain) -> None:
        """Suspend the guest that writes all the time while it is another's turn."""
        suspend = domain is not self.live
        if suspend != self.live_is_suspended:
            self.daemon.virsh("suspend" if suspend else "resume", self.live.name)
            self.live_is_suspended = suspend

    def write(self, domain: LabDomain, offset_mib: int) -> None:
        """Write like a guest, to vdb, and flush, if the domain runs."""
        if domain.name not in self.daemon.guest_pids():
            return
        self.turn = self.turn % 255 + 1
        domain.qemu_io("vdb", f"write -f -P {self.turn} {offset_mib}M 64k")
        self.written[domain.name, offset_mib] = bytes([self.turn]) * 65536

    def checkpoints(self, domain: LabDomain) -> set[str]:
        return set(self.daemon.virsh("checkpoint-list", domain.name, "--name").split())

    def assert_written(self, domain: LabDomain) -> None:
        """The raw image itself holds what was written last, everywhere."""
        for (name, offset_mib), data in self.written.items():
            if name == domain.name:
                with self.files[name]["vdb"].open("rb") as image:
                    image.seek(offset_mib * MIB)
                    assert image.read(len(data)) == data, f"lost: the write at {offset_mib} MiB"

    def assert_guest_lost_nothing(self) -> None:
        """Shut the guest down that was backed up and undone all the time: its disk is sound."""
        self.make_room(self.live)
        written = self.live.guest_exec("kill $(cat /run/writer.pid); cat /mnt/vda/writer.log")
        lines = written.splitlines()
        assert lines == [f"line {number}" for number in range(1, len(lines) + 1)]
        self.live.guest_shutdown()
        raw = self.daemon.path / "vda.raw"
        run("qemu-img", "convert", "-O", "raw", self.files[self.live.name]["vda"], raw)
        run("e2fsck", "-fn", raw)

    def _description(self, domain: LabDomain) -> Path:
        return self.daemon.path / "console" / f"{domain.name}.xml"

    def assert_at_home(self, domain: LabDomain) -> None:
        """The domain is on its own images on both sides; nothing stands beside them."""
        files = self.files[domain.name]
        assert domain.files() == files, "live XML"
        assert domain.files(inactive=True) == files, "persistent XML"
        assert set(self.daemon.images.iterdir()) == self._known(), "files beside the images"
        self._assert_not_served(domain)

    def _assert_not_served(self, domain: LabDomain) -> None:
        """Nothing of a pull job is left, and the guest runs, if its domain does."""
        assert not [*self.scratch.iterdir(), *self.daemon.path.rglob("vbk-*.sock")]
        if domain.name in self.daemon.guest_pids():
            assert domain.state() == "running"
            assert "None" in self.daemon.virsh("domjobinfo", domain.name)
            assert domain.exports() == []

    def _known(self) -> set[Path]:
        return {file for files in self.files.values() for file in files.values()}


@contextlib.contextmanager
def open_world(daemon: Daemon) -> Iterator[World]:
    """Define and start the domains; in the end the guest must have lost nothing."""
    with contextlib.ExitStack() as stack:
        live = stack.enter_context(running(daemon, "live", DISKS, writer="vda"))
        plain = define(daemon, "plain", DISKS, agent=False)
        stack.callback(plain.undefine)
        at_rest = define(daemon, "at-rest", DISKS)
        stack.callback(at_rest.undefine)
        uefi = define(daemon, "uefi", DISKS[1:], agent=False, nvram=True)
        stack.callback(uefi.undefine)
        stack.callback(daemon.ensure_started)
        plain.start()
        world = World(daemon, live, plain, at_rest, uefi)
        yield world
        world.assert_guest_lost_nothing()


def configure(directory: Path, world: World, domain: str, **group: object) -> Path:
    """Write a configuration that copies one disk after the other: points come in one order."""
    target = directory / "target"
    target.mkdir(exist_ok=True)
    settings = {"target": str(target), "autostart": True, "hosts": [domain], **group}
    if group.get("method") == "pull":
        # QEMU makes its socket there, too, where a domain has no agent: the path must be short.
        settings["scratch"] = str(world.scratch)
    content = {"uri": world.daemon.uri, "parallel_disks": 1, "groups": {"all": settings}}
    path = directory / "config.yml"
    path.write_text(yaml.safe_dump(content))
    return path


def let_hours_pass(directory: Path) -> None:
    """Make all files below look old: what a dead process left is told from what is being made."""
    for path in directory.rglob("*"):
        then = path.lstat().st_mtime - _LONG_AGO_S
        os.utime(path, (then, then), follow_symlinks=False)

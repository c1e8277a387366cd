"""A random walk with one running domain: whatever happens in whatever order, backups stay right.

A ``Walk`` knows every byte of the domain's disks, because it alone writes to them: there is no file
system on them. What a backup must restore is what the disks held when its job began; while the
command stands still at one of its points, the guest may write on, and the command may die::

    write, zeroes, discard, resize   by QEMU's monitor, or by the guest, big or tiny, at any sector
    backup                           undisturbed, written into, or killed; clean now or later
    libvirtd restarts
    the domain                       is stopped and started, loses its power, gets another disk, is
                                     defined anew; an image is put back as it was some time ago
    checkpoints                      are forgotten by libvirt, or removed, or made by somebody else
    remove                           some backup, of any age, with what only it needed
    restore                          some backup, compared byte for byte

The steps of a walk follow from its seed; a failing one says what it did. Used by ``tests/crash``.
"""

import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults.command import Ended, Process, run_between
from faults.deaths import kill_process
from faults.references import difference
from lab.disks import MIB, DiskSpec, make_image
from lab.domains import LabDomain
from lab.libvirt_root import Daemon
from lab.process import LabError, run

SECTOR_BYTES = 512
CLUSTER_BYTES = 64 << 10
"""Of a qcow2 image: what is discarded is zeros only where it covers clusters."""

MAX_DISK_BYTES = 24 * MIB
MAX_KEPT = 6
_LENGTHS = (SECTOR_BYTES, 4096, 61440, 1 << 16, 300 << 10, MIB, 3 * MIB)
_POINTS_OF_A_BACKUP = 130
_STEPS = (
    "after backupBegin", "after read export", "after abortJob", "before rename definition",
    "after rename definition", "after delete checkpoint",
)  # fmt: skip
_BEGIN = "before backupBegin"

Disks = dict[str, bytes]


@dataclass
class Walk:
    """Where a walk is: what the disks hold, and what each backup must restore."""

    domain: LabDomain
    directory: Path
    config: Path
    seed: int
    disks: dict[str, bytearray] = field(default_factory=dict)
    kept: dict[str, Disks] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._target = self.directory / "target"
        self._root = self.domain.root
        self._restores = 0
        self._saved: dict[str, tuple[Path, bytearray]] = {}
        self._foreign: set[str] = set()
        self._lost_power = False
        self.read_disks()

    def go(self, steps: int) -> None:
        """Take so many steps, then restore every backup that is left.

        Whatever happened, the last of two backups in peace has read only what changed.

        Raises:
            AssertionError: a backup is not what it must be, or a command failed.
        """
        actions = list(ACTIONS)
        try:
            for action in self._random.choices(actions, [ACTIONS[act] for act in actions], k=steps):
                self.said.append(action.__name__)
                action(self)
            self.said.append("in the end")
            self._keep_at_most(MAX_KEPT - 2)
            self.back_up()
            self.write("vda")
            self.back_up()
            self.clean()
            self.assert_incremental("vda")
            for name in sorted(self.kept):
                self.check(name)
        except BaseException as error:
            error.add_note(f"seed {self.seed}: {' | '.join(self.said)}")
            raise

    def read_disks(self) -> None:
        """Learn what the disks hold from QEMU itself, with the guest suspended."""
        self._virsh("suspend")
        for dev in self.domain.images():
            self.disks[dev] = bytearray(self._in_image(dev))
        self._virsh("resume")

    # What the guest does.

    def write(self, dev: str | None = None) -> None:
        """Fill a range with one byte."""
        dev, offset, length = self._range(SECTOR_BYTES, dev)
        value = self._random.randrange(1, 256)
        self._io(dev, f"write -P {value} {offset} {length}")
        self._fill(dev, offset, length, value)

    def write_zeroes(self) -> None:
        """Zero a range by a command of its own; the image may keep it or forget it."""
        dev, offset, length = self._range(SECTOR_BYTES)
        self._io(dev, f"write {self._random.choice(('-z', '-z -u'))} {offset} {length}")
        self._fill(dev, offset, length, 0)

    def discard(self) -> None:
        """Give a range back: each cluster reads as zeros then, or QEMU has thrown the wish away.

        It does so while it serves the disk, and for a moment more: the filter of a backup job does
        not let discards through. Which it was, is seen in the image.
        """
        dev, offset, length = self._range(CLUSTER_BYTES)
        self._io(dev, f"discard {offset} {length}")
        self.domain.qemu_io(dev, "flush")
        now, was = self._in_image(dev), self.disks[dev]
        for start in range(offset, offset + length, CLUSTER_BYTES):
            part = slice(start, start + CLUSTER_BYTES)
            assert now[part] in (bytes(CLUSTER_BYTES), was[part]), f"{dev}: discarded into what?"
            was[part] = now[part]

    def write_in_the_guest(self) -> None:
        """Let the guest's own kernel write."""
        dev, offset, length = self._range(SECTOR_BYTES)
        value = self._random.randrange(1, 256)
        self.said[-1] += f" {dev} {value} {offset}+{length}"
        self._wait_booted()
        where = f"seek={offset // SECTOR_BYTES} count={length // SECTOR_BYTES}"
        self.domain.guest_exec(
            f"tr '\\0' '\\{value:03o}' </dev/zero"
            f" | dd of=/dev/{dev} bs={SECTOR_BYTES} iflag=fullblock {where} conv=fsync,notrunc"
        )
        self._fill(dev, offset, length, value)

    def _in_image(self, dev: str) -> bytes:
        """What QEMU has of a disk in its image, all being flushed."""
        image = self.domain.image(dev)
        copy = self.directory / f"{dev}.now"
        run("qemu-img", "convert", "-U", "-f", image.suffix[1:], "-O", "raw", image, copy)
        return copy.read_bytes()

    def _wait_booted(self) -> None:
        try:
            self.domain.wait_booted(30)
        except LabError:
            # On a busy machine libvirt 9.0 may miss that the agent opened its port; it then shows
            # the channel as disconnected until it looks anew.
            self.restart_libvirt()
            self.domain.wait_booted()

    def resize(self) -> None:
        """Let a disk grow, to a length that ends within a chunk."""
        dev = self._random.choice(sorted(self.disks))
        size_bytes = len(self.disks[dev]) + self._random.randrange(1, 3000) * SECTOR_BYTES
        if size_bytes <= MAX_DISK_BYTES:
            self.said[-1] += f" {dev} {size_bytes}"
            try:
                self._virsh("blockresize", dev, f"{size_bytes}B")
            except LabError:  # QEMU refuses where a loss of power has left a broken bitmap
                assert self._lost_power, "not resized"
                return
            self.disks[dev].extend(bytes(size_bytes - len(self.disks[dev])))

    # What the host does.

    def back_up(self) -> None:
        """Make a backup, while the guest writes."""
        began = self._run_backup(self._write_sometimes)
        assert began, "no backup job"

    def kill_backup(self) -> None:
        """Kill a backup at some point, and undo it now, or leave that to the next one."""
        left = self._random.randrange(_POINTS_OF_A_BACKUP)
        step = self._random.choice(_STEPS) if self._random.random() < 0.5 else None
        self.said[-1] += f" at {step or left}"

        def on_point(name: str, process: Process) -> None:
            nonlocal left
            self._write_sometimes(name, process)
            left -= 1
            if name == step or (left == 0 and not step):
                self.said[-1] += f" {name}"
                kill_process(process)

        base = self._newest_checkpoint()
        was_there = base in self._checkpoints()
        self._run_backup(on_point, may_die=True)
        if was_there and self._newest_checkpoint() == base:
            assert base in self._checkpoints(), "there is nothing to go on from any more"
        if self._random.random() < 0.5:
            self.clean()

    def restart_libvirt(self) -> None:
        assert isinstance(self._root, Daemon)
        self._root.kill()
        self._root.start()

    def clean(self) -> None:
        """Undo, sweep."""
        self._succeed("clean", "-b")
        self._note_backups({})

    def stop_and_start(self) -> None:
        """End QEMU as it wants to end: it keeps its bitmaps in the images."""
        with self._stopped():
            pass

    def lose_power(self) -> None:
        """Kill QEMU: what the guest flushed is there, the bitmaps are not."""
        self._lost_power = True
        for dev in self.disks:
            self.domain.qemu_io(dev, "flush")
        os.kill(self._root.guest_pids()[self.domain.name], signal.SIGKILL)
        self.domain.wait_shut_off()
        self.domain.start()

    def put_image_back(self) -> None:
        """Save a copy of an image; the next time, put it back as that file, or as another one."""
        dev = self._random.choice(sorted(self.disks))
        self.said[-1] += f" {dev}"
        with self._stopped():
            image = self.domain.image(dev, inactive=True)
            if dev not in self._saved:
                copy = self.directory / f"{image.name}.saved"
                self._saved[dev] = (shutil.copyfile(image, copy), self.disks[dev][:])
                return
            copy, self.disks[dev] = self._saved.pop(dev)
            if self._random.random() < 0.5:
                self.said[-1] += " as another file"
                copy.chmod(image.stat().st_mode)
                shutil.move(copy, image)
            else:
                shutil.copyfile(copy, image)

    def add_disk(self) -> None:
        """Give the running domain one more disk."""
        if "vdc" not in self.disks:
            spec = DiskSpec("vdc", size_bytes=5 * MIB, fs=None)
            image = make_image(spec, self._root.images, f"{self.domain.name}-added")
            words = ("--subdriver", "qcow2", "--live", "--config")
            self._virsh("attach-disk", image, "vdc", *words)
            self.disks["vdc"] = bytearray(5 * MIB)

    def define_anew(self) -> None:
        """libvirt forgets the domain with all that it knows of it, and learns of it again."""
        description = self.directory / "domain.xml"
        description.write_text(self._virsh("dumpxml", "--inactive"))
        self._virsh("undefine", "--checkpoints-metadata")
        self._root.virsh("define", description)

    def lose_checkpoint(self) -> None:
        """Let libvirt forget a checkpoint, or remove it with its bitmaps."""
        how = self._random.choice(([], ["--metadata"]))
        for name in self._checkpoints()[:1]:
            self.said[-1] += f" {name} {how}"
            self._foreign.discard(name)
            try:
                self._virsh("checkpoint-delete", name, *how)
            except LabError:
                # Where a bitmap was lost, libvirt cannot remove it: an admin lets it forget.
                self._virsh("checkpoint-delete", name, "--metadata")

    def make_foreign_checkpoint(self) -> None:
        """Somebody else keeps track of changes, too."""
        name = f"foreign-{len(self.said)}"
        with suppress(LabError):  # where a bitmap was lost, libvirt makes none behind it
            self._virsh("checkpoint-create-as", name, "--diskspec", "vdb,checkpoint=no")
            self._foreign.add(name)

    def remove(self) -> None:
        """Remove a backup, of any age, and give its space back."""
        if self.kept:
            name = self._random.choice(sorted(self.kept))
            self.said[-1] += f" {name}"
            for path in (self._target / self.domain.name).glob(f"{name}*"):
                path.unlink()
            del self.kept[name]
            self.clean()

    def restore(self) -> None:
        """Restore some backup."""
        if self.kept:
            self.check(self._random.choice(sorted(self.kept)))

    def check(self, name: str) -> None:
        """A backup restores to the very bytes that the disks held when it began."""
        self._restores += 1
        place = self.directory / f"restored-{self._restores}"
        self._succeed("restore", "all", self.domain.name, place, "--date", name)
        for dev, expected in self.kept[name].items():
            (path,) = place.glob(f"*-{dev}.raw")
            restored = path.read_bytes()
            assert restored == expected, f"{name}: {dev}: {difference(restored, expected)}"
            path.unlink()

    def assert_incremental(self, dev: str) -> None:
        """The newest backup of a disk read what changed since the one before."""
        *_, before, newest = sorted(self.kept)
        reading = self._reading(newest, dev)
        assert reading["base"] == before, reading
        checkpoints = set(self._checkpoints())
        assert checkpoints == {reading["checkpoint"], *self._foreign}, checkpoints

    def _newest_checkpoint(self) -> str | None:
        """What the next backup of vda goes on from, if libvirt still knows it."""
        return self._reading(max(self.kept), "vda")["checkpoint"] if self.kept else None

    def _reading(self, name: str, dev: str) -> dict[str, Any]:
        definition = self._target / self.domain.name / f"{name}.json"
        reading: dict[str, Any] = json.loads(definition.read_text())["images"][dev]["reading"]
        return reading

    def _checkpoints(self) -> list[str]:
        return self._virsh("checkpoint-list", "--name").split()

    def _virsh(self, command: str, *words: str | Path) -> str:
        return self._root.virsh(command, self.domain.name, *words)

    @contextmanager
    def _stopped(self) -> Iterator[None]:
        self._virsh("destroy", "--graceful")
        try:
            yield
        finally:
            self.domain.start()

    def _run_backup(
        self, on_point: Callable[[str, Process], None], *, may_die: bool = False
    ) -> bool:
        began: Disks = {}
        self._keep_at_most(MAX_KEPT - 1)

        def noting_begin(name: str, process: Process) -> None:
            if name == _BEGIN:
                began.update({dev: bytes(data) for dev, data in self.disks.items()})
            on_point(name, process)

        ended = self._run(noting_begin, "backup")
        assert ended.returncode in ((0, -9) if may_die else (0,)), ended.err
        self._note_backups(began)
        return bool(began)

    def _note_backups(self, began: Disks) -> None:
        """See which backups there are; one that is new holds what its disks held."""
        out = self._succeed("list", "--json").out
        events = [json.loads(line) for line in out.splitlines()]
        listed = {event["backup"] for event in events if event["event"] == "backup"}
        assert listed >= self.kept.keys(), f"lost: {self.kept.keys() - listed}"
        for name in listed - self.kept.keys():
            self.kept[name] = began

    def _keep_at_most(self, count: int) -> None:
        while len(self.kept) > count:
            self.remove()

    def _write_sometimes(self, name: str, _process: Process) -> None:
        # Not between the two: what the disks hold then is known to QEMU alone.
        if name != _BEGIN and self._random.random() < 0.03:
            self._random.choice((self.write, self.write_zeroes))()

    def _succeed(self, *words: object) -> Ended:
        ended = self._run(lambda _name, _process: None, *words)
        assert ended.returncode == 0, f"{words}: {ended.returncode} {ended.err}"
        return ended

    def _run(self, on_point: Callable[[str, Process], None], *words: object) -> Ended:
        return run_between(("-c", self.config, *words), on_point)

    def _io(self, dev: str, command: str) -> None:
        self.said[-1] += f" {dev} {command}"
        self.domain.qemu_io(dev, command)

    def _fill(self, dev: str, offset: int, length: int, value: int) -> None:
        self.disks[dev][offset : offset + length] = bytes([value]) * length

    def _range(self, unit_bytes: int, dev: str | None = None) -> tuple[str, int, int]:
        """Some disk, and a range of it in whole units."""
        dev = dev or self._random.choice(sorted(self.disks))
        units = len(self.disks[dev]) // unit_bytes
        length = min(max(1, self._random.choice(_LENGTHS) // unit_bytes), units)
        return dev, self._random.randrange(units - length + 1) * unit_bytes, length * unit_bytes


ACTIONS: dict[Callable[[Walk], None], int] = {
    Walk.write: 8,
    Walk.write_zeroes: 5,
    Walk.discard: 5,
    Walk.write_in_the_guest: 2,
    Walk.resize: 2,
    Walk.back_up: 8,
    Walk.kill_backup: 4,
    Walk.restart_libvirt: 1,
    Walk.stop_and_start: 1,
    Walk.lose_power: 1,
    Walk.put_image_back: 3,
    Walk.add_disk: 1,
    Walk.define_anew: 1,
    Walk.lose_checkpoint: 1,
    Walk.make_foreign_checkpoint: 1,
    Walk.remove: 2,
    Walk.restore: 2,
}
"""What may happen at a step, and how often beside the others."""

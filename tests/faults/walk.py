"""A random walk with one running domain: whatever happens in whatever order, backups stay right.

A ``Walk`` knows every byte of the domain's disks, because it alone writes to them: there is no file
system on them. What a backup must restore is what the disks held when its job began; while the
command stands still at one of its points, the guest may write on, and the command may die::

    write, zeroes, discard, resize   by QEMU's monitor, or by the guest, big or tiny, at any sector
    backup                           undisturbed, written into, or killed; clean now or later
    libvirtd restarts
    remove                           some backup, of any age, with what only it needed
    restore                          some backup, compared byte for byte

The steps of a walk follow from its seed; a failing one says what it did. Used by ``tests/crash``.
"""

import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from faults.command import Ended, Process, run_between
from faults.deaths import kill_process
from lab.domains import LabDomain
from lab.process import run

MIB = 1 << 20
SECTOR_BYTES = 512
CLUSTER_BYTES = 64 << 10
"""Of a qcow2 image: what is discarded is zeros only where it covers clusters."""

MAX_DISK_BYTES = 24 * MIB
MAX_KEPT = 6
_LENGTHS = (SECTOR_BYTES, 4096, 61440, 1 << 16, 300 << 10, MIB, 3 * MIB)
_POINTS_OF_A_BACKUP = 130
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
        self._restores = 0
        self.read_disks()

    def go(self, steps: int) -> None:
        """Take so many steps, then restore every backup that is left.

        Raises:
            AssertionError: a backup is not what it must be, or a command failed.
        """
        actions = list(ACTIONS)
        try:
            for action in self._random.choices(actions, [ACTIONS[act] for act in actions], k=steps):
                self.said.append(action.__name__)
                action(self)
            for name in sorted(self.kept):
                self.check(name)
        except BaseException as error:
            error.add_note(f"seed {self.seed}: {' | '.join(self.said)}")
            raise

    def read_disks(self) -> None:
        """Learn what the disks hold from QEMU itself, with the guest suspended."""
        with self._suspended():
            for dev, image in self.domain.images().items():
                copy = self.directory / f"{dev}.now"
                image_format = image.suffix[1:]
                run("qemu-img", "convert", "-U", "-f", image_format, "-O", "raw", image, copy)
                self.disks[dev] = bytearray(copy.read_bytes())

    # What the guest does.

    def write(self) -> None:
        """Fill a range with one byte."""
        dev, offset, length = self._range(SECTOR_BYTES)
        value = self._random.randrange(1, 256)
        self._io(dev, f"write -P {value} {offset} {length}")
        self._fill(dev, offset, length, value)

    def write_zeroes(self) -> None:
        """Zero a range by a command of its own; the image may keep it or forget it."""
        dev, offset, length = self._range(SECTOR_BYTES)
        self._io(dev, f"write {self._random.choice(('-z', '-z -u'))} {offset} {length}")
        self._fill(dev, offset, length, 0)

    def discard(self) -> None:
        """Give a range back."""
        dev, offset, length = self._range(CLUSTER_BYTES)
        self._io(dev, f"discard {offset} {length}")
        self._fill(dev, offset, length, 0)

    def write_in_the_guest(self) -> None:
        """Let the guest's own kernel write."""
        dev, offset, length = self._range(SECTOR_BYTES)
        value = self._random.randrange(1, 256)
        self.said[-1] += f" {dev} {value} {offset}+{length}"
        where = f"seek={offset // SECTOR_BYTES} count={length // SECTOR_BYTES}"
        self.domain.guest_exec(
            f"tr '\\0' '\\{value:03o}' </dev/zero"
            f" | dd of=/dev/{dev} bs={SECTOR_BYTES} iflag=fullblock {where} conv=fsync,notrunc"
        )
        self._fill(dev, offset, length, value)

    def resize(self) -> None:
        """Let a disk grow, to a length that ends within a chunk."""
        dev = self._random.choice(sorted(self.disks))
        size_bytes = len(self.disks[dev]) + self._random.randrange(1, 3000) * SECTOR_BYTES
        if size_bytes <= MAX_DISK_BYTES:
            self.said[-1] += f" {dev} {size_bytes}"
            self.domain.root.virsh("blockresize", self.domain.name, dev, f"{size_bytes}B")
            self.disks[dev].extend(bytes(size_bytes - len(self.disks[dev])))

    # What the host does.

    def back_up(self) -> None:
        """Make a backup, while the guest writes."""
        began = self._run_backup(self._write_sometimes)
        assert began, "no backup job"

    def kill_backup(self) -> None:
        """Kill a backup at some point, and undo it now, or leave that to the next one."""
        left = self._random.randrange(_POINTS_OF_A_BACKUP)
        self.said[-1] += f" at {left}"

        def on_point(name: str, process: Process) -> None:
            nonlocal left
            self._write_sometimes(name, process)
            left -= 1
            if left == 0:
                self.said[-1] += f" {name}"
                kill_process(process)

        self._run_backup(on_point, may_die=True)
        if self._random.random() < 0.5:
            self.clean()

    def restart_libvirt(self) -> None:
        self.domain.root.kill()
        self.domain.root.start()

    def clean(self) -> None:
        """Undo, sweep."""
        self._succeed("clean", "-b")
        self._note_backups({})

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
            assert restored == expected, f"{name}: {dev}: {_difference(restored, expected)}"
            path.unlink()

    def _run_backup(
        self, on_point: Callable[[str, Process], None], *, may_die: bool = False
    ) -> bool:
        began: Disks = {}

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
        while len(self.kept) > MAX_KEPT:
            self.said[-1] += " and"
            self.remove()

    def _write_sometimes(self, name: str, _process: Process) -> None:
        # Not between the two: what the disks hold then is known to QEMU alone.
        if name != _BEGIN and self._random.random() < 0.03:
            self._random.choice((self.write, self.write_zeroes, self.discard))()

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

    def _range(self, unit_bytes: int) -> tuple[str, int, int]:
        """Some disk, and a range of it in whole units."""
        dev = self._random.choice(sorted(self.disks))
        units = len(self.disks[dev]) // unit_bytes
        length = min(max(1, self._random.choice(_LENGTHS) // unit_bytes), units)
        return dev, self._random.randrange(units - length + 1) * unit_bytes, length * unit_bytes

    @contextmanager
    def _suspended(self) -> Iterator[None]:
        self.domain.root.virsh("suspend", self.domain.name)
        try:
            yield
        finally:
            self.domain.root.virsh("resume", self.domain.name)


ACTIONS: dict[Callable[[Walk], None], int] = {
    Walk.write: 8,
    Walk.write_zeroes: 5,
    Walk.discard: 5,
    Walk.write_in_the_guest: 2,
    Walk.resize: 2,
    Walk.back_up: 8,
    Walk.kill_backup: 4,
    Walk.restart_libvirt: 1,
    Walk.remove: 2,
    Walk.restore: 2,
}
"""What may happen at a step, and how often beside the others."""


def _difference(found: bytes, expected: bytes) -> str:
    if len(found) != len(expected):
        return f"{len(found)} bytes, not {len(expected)}"
    at = next(n for n, (one, other) in enumerate(zip(found, expected, strict=True)) if one != other)
    return f"byte {at} is {found[at]}, not {expected[at]}"

"""A random walk of a domain without a guest, whose images go back and forth in time.

What a backup must restore is what QEMU itself reads of the images at that moment. Nothing else has
to be known: whatever was done to an image, it is what it is.
"""

import asyncio
import os
import random
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from incremental_site import IncrementalSite
from lab.disks import DiskSpec
from lab.process import LabError, run

KIB = 1 << 10
SIZES = (6 << 20, (6 << 20) - 200 * KIB, (4 << 20) + 64 * KIB, (8 << 20) + 512)
DISKS = tuple(DiskSpec(dev, size_bytes=SIZES[0], fs=None) for dev in ("vda", "vdb"))
MAX_BACKUPS = 5
MAX_SAVED = 3


@dataclass
class RollBacks:
    """One walk: the site, what was put aside, and what was done."""

    site: IncrementalSite
    seed: int
    said: list[str] = field(default_factory=lambda: ["begin"])
    saved: list[tuple[str, Path]] = field(default_factory=list)
    full: int = 0
    by_changes: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.runs = True

    async def go(self, steps: int) -> None:
        """Take so many steps; every backup restores what the images held."""
        actions = list(ACTIONS)
        try:
            for dev in ("vda", "vdb"):
                # What becomes zeros is noticed in another way.
                await asyncio.to_thread(self._do, dev, f"write -P 255 0 {SIZES[2]}")
            await self.back_up()
            for action in self.random.choices(actions, [ACTIONS[act] for act in actions], k=steps):
                wants_backup = await self._take(action)
                if wants_backup and action is RollBacks.save and self.random.random() < 0.6:
                    await self._take(RollBacks.put_back)
            await self.back_up()
            await self.site.check()
        except BaseException as error:
            error.add_note(f"seed {self.seed}: {' | '.join(self.said)}")
            raise

    async def _take(self, action: Callable[["RollBacks"], bool | None]) -> bool | None:
        """Take one step, and back up behind it if it wants that, or by chance."""
        self.said.append(action.__name__)
        wants_backup = await asyncio.to_thread(action, self)
        if wants_backup or self.random.random() < 0.3:
            await self.back_up()
        return wants_backup

    async def back_up(self) -> None:
        """Back up; now and then an old one is removed, and was right to the last."""
        self.said.append("back up")
        read = await self.site.back_up()
        for dev, disk in read.disks.items():
            self.said[-1] += f" {dev}: {disk.reason or disk.base}"
            self.full += disk.base is None
            self.by_changes += disk.base is not None
        while len(self.site.backups) > MAX_BACKUPS or self.random.random() < 0.15:
            if not self.site.backups:
                break
            name = self.random.choice(sorted(self.site.backups))
            self.said.append(f"remove {name}")
            await self.site.check([name])
            self.site.remove(name)

    def write(self, dev: str | None = None) -> None:
        """Write, zero or discard, by whatever QEMU has the image open."""
        dev = dev or self._dev()
        offset = self.random.randrange(SIZES[2] // 512) * 512
        length = self.random.choice((512, 64 * KIB, 256 * KIB, 700 * KIB))
        verb = f"write -P {self.random.randrange(1, 256)}"
        if self.random.random() < 0.2:
            verb = "write -z"
        elif self.random.random() < 0.1:
            verb, offset = "discard", offset // (64 * KIB) * 64 * KIB
        self._do(dev, f"{verb} {offset} {min(length, SIZES[2] - offset)}")

    def write_at_the_end(self) -> None:
        """Write where resizing takes away."""
        self._do(self._dev(), f"write -P {self.random.randrange(1, 256)} {SIZES[2] - 512} 900k")

    def start_or_stop(self) -> None:
        """Let QEMU keep its bitmaps in the images, and read them again."""
        if self.runs:
            self.site.domain.destroy()
        else:
            self.site.domain.start_paused()
        self.runs = not self.runs

    def lose_power(self) -> None:
        """Kill QEMU: its bitmaps are left in use."""
        if self.runs:
            os.kill(self.site.daemon.guest_pids()[self.site.name], signal.SIGKILL)
            self.site.domain.wait_shut_off()
            self.runs = False

    def save(self) -> bool:
        """Copy an image as a storage snapshot would, also of one that QEMU has open.

        Mostly it is then written to, and backed up as it is at rest: what a later state has that is
        not in the copy must not come back.
        """
        if self.runs and self.random.random() < 0.7:
            self.start_or_stop()
        dev = self._dev()
        path = self.site.path / f"saved-{len(self.said)}"
        self.said[-1] += f" {dev} as {path.name}, {'on' if self.runs else 'off'}"
        self.saved.append((dev, shutil.copyfile(self._image(dev), path)))
        if len(self.saved) > MAX_SAVED:
            self.saved.pop(self.random.randrange(MAX_SAVED))[1].unlink()
        if self.runs or self.random.random() < 0.3:
            return False
        self.start_or_stop()
        self.write(dev)
        self.start_or_stop()
        return True

    def put_back(self) -> bool:
        """Put a copy back: one disk of two, as the same file or another, on or off afterwards."""
        if not self.saved:
            return False
        if self.runs:
            self.start_or_stop()
        is_last = self.random.random() < 0.6
        dev, copy = self.saved[-1] if is_last else self.random.choice(self.saved)
        self.said[-1] += f" {dev} {copy.name}"
        image = self._image(dev)
        if self.random.random() < 0.1:
            self.said[-1] += " as another file"
            image.unlink()
        shutil.copyfile(copy, image)
        if self.random.random() < 0.5:
            self.start_or_stop()
            self.said[-1] += ", on"
        return True

    def snapshot(self) -> None:
        """Make an internal snapshot, or revert to one; QEMU refuses beside bitmaps."""
        if self.runs:
            self.start_or_stop()
        dev = self._dev()
        image = self._image(dev)
        if self.random.random() < 0.4:
            self.said[-1] += f" {dev} made"
            run("qemu-img", "snapshot", "-c", f"s{len(self.said)}", image)
            return
        names = [line.split()[1] for line in run("qemu-img", "snapshot", "-l", image).splitlines()]
        names = [name for name in names if name.startswith("s")]
        if not names:
            return
        if self.random.random() < 0.5:
            for bitmap in self.site.stored_bitmaps(dev):
                run("qemu-img", "bitmap", "--remove", image, bitmap)
        name = self.random.choice(names)
        try:
            run("qemu-img", "snapshot", "-a", name, image)
        except LabError as refused:
            self.said[-1] += f" {dev} {name} {str(refused)[-40:]}"
        else:
            self.said[-1] += f" {dev} reverted to {name}"

    def forget_snapshots(self) -> None:
        """Remove all internal snapshots: the image is tracked again."""
        if self.runs:
            self.start_or_stop()
        for dev in ("vda", "vdb"):
            image = self._image(dev)
            for line in run("qemu-img", "snapshot", "-l", image).splitlines():
                words = line.split()
                if words[1:] and words[1].startswith("s"):
                    run("qemu-img", "snapshot", "-d", words[1], image)

    def resize(self) -> None:
        """Shrink or grow, mostly back to a length that it had."""
        dev, size_bytes = self._dev(), self.random.choice(SIZES)
        self.said[-1] += f" {dev} {size_bytes}"
        try:
            if self.runs:
                self.site.daemon.virsh("blockresize", self.site.name, dev, f"{size_bytes}B")
            else:
                run("qemu-img", "resize", "-q", "--shrink", self._image(dev), str(size_bytes))
        except LabError as refused:
            self.said[-1] += f" refused: {str(refused)[-60:]}"

    def shrink_and_grow(self) -> None:
        """Lose the end without a trace in the length."""
        dev = self._dev()
        image = self._image(dev)
        if self.runs:
            self.start_or_stop()
        shrunk = self.random.randrange(1 << 20, SIZES[2]) // 512 * 512
        length = _length(image)
        self.said[-1] += f" {dev} to {shrunk} and back to {length}"
        try:
            run("qemu-img", "resize", "-q", "--shrink", image, str(shrunk))
            run("qemu-img", "resize", "-q", image, str(length))
        except LabError as refused:
            self.said[-1] += f" refused: {str(refused)[-60:]}"

    def forget_checkpoint(self) -> None:
        """Let libvirt forget a checkpoint whose bitmap stays."""
        for name in self.site.checkpoints()[:1]:
            self.site.daemon.virsh("checkpoint-delete", self.site.name, name, "--metadata")

    def _do(self, dev: str, command: str) -> None:
        self.said[-1] += f" {dev} {command}"
        if self.runs:
            self.site.write(dev, command)
        elif self.random.random() < 0.5:
            run("qemu-io", "-f", "qcow2", "-d", "unmap", "-c", command, self._image(dev))

    def _dev(self) -> str:
        return self.random.choice(("vda", "vdb"))

    def _image(self, dev: str) -> Path:
        return self.site.domain.image(dev, inactive=True)


def _length(image: Path) -> int:
    return int.from_bytes(image.read_bytes()[24:32], "big")


ACTIONS: dict[Callable[[RollBacks], bool | None], float] = {
    RollBacks.write: 8,
    RollBacks.write_at_the_end: 2,
    RollBacks.start_or_stop: 5,
    RollBacks.lose_power: 0.5,
    RollBacks.save: 5,
    RollBacks.put_back: 6,
    RollBacks.snapshot: 0.7,
    RollBacks.forget_snapshots: 2,
    RollBacks.resize: 0.4,
    RollBacks.shrink_and_grow: 0.7,
    RollBacks.forget_checkpoint: 1,
}
"""What may happen at a step, and how often beside the others."""

"""What a domain's disks held at the moment they stood still: the proof of a backup.

They are copied aside while the command stands still too::

    snapshot    right behind it: the images are not written to any more
    pull job    right before it, with the domain suspended: behind it, the guest writes to them

Of a pulled disk, the copy is what the guest sees, raw. Called by ``runs.py`` at each point.
"""

import filecmp
import shutil
from collections.abc import Callable
from pathlib import Path

from faults.world import World
from lab.domains import LabDomain
from lab.process import run


class References:
    """The copies of one domain; each one a list of files with the names that a restore gives."""

    def __init__(self, world: World, domain: LabDomain, directory: Path) -> None:
        self.taken: list[list[Path]] = []
        self._world = world
        self._domain = domain
        self._directory = directory
        self._is_held = False

    def watch(self, point: str) -> None:
        """Copy the disks aside, if they stand still at this point."""
        if point == "after snapshotCreateXML":
            self._take(shutil.copyfile)
        elif point == "before backupBegin" and self._domain.name in self._world.daemon.guest_pids():
            self._world.daemon.virsh("suspend", self._domain.name)
            self._is_held = True
            self._take(_copy_raw)
        elif point == "after backupBegin":
            self.let_go()
        else:
            return
        if not self._is_held:
            # What is written from now on is not in the backup: it makes old what is.
            self._world.write(self._domain, 9)

    def let_go(self) -> None:
        """Let the guest run, if a copy held it."""
        if self._is_held and self._domain.state() == "paused":
            self._world.daemon.virsh("resume", self._domain.name)
        self._is_held = False

    def assert_one_is(self, place: Path, backup: str) -> None:
        """What was restored is one of the copies; or the images, if none had to be made.

        A domain that stopped while it was pulled was read from its images at rest.
        """
        own = list(self._world.files[self._domain.name].values())
        stood_still = [*(self.taken or [own]), *self._at_rest(place)]
        assert any(
            all(_is_same(path, place / path.name) for path in still) for still in stood_still
        ), f"{backup} is not what stood still"

    def _at_rest(self, place: Path) -> list[list[Path]]:
        """Raw copies of a pulled domain's images, if it is shut off."""
        own = self._world.files[self._domain.name].values()
        names = [path.with_suffix(".raw").name for path in own]
        is_pulled = [path.name for path in own] != names and all(
            (place / name).exists() for name in names
        )
        if not is_pulled or self._domain.state() != "shut off":
            return []
        aside = self._directory / f"at-rest-{place.name}"
        aside.mkdir()
        return [[_copy_raw(path, aside / path.name) for path in own]]

    def _take(self, copy: Callable[[Path, Path], Path]) -> None:
        aside = self._directory / f"still-{len(self.taken)}"
        aside.mkdir()
        files = self._world.files[self._domain.name].values()
        self.taken.append([copy(path, aside / path.name) for path in files])


def _copy_raw(image: Path, copy: Path) -> Path:
    raw = copy.with_suffix(".raw")
    run("qemu-img", "convert", "-U", "-f", image.suffix[1:], "-O", "raw", image, raw)
    return raw


def _is_same(one: Path, other: Path) -> bool:
    return other.exists() and filecmp.cmp(one, other, shallow=False)


def difference(found: bytes, expected: bytes) -> str:
    """Say where two images differ first."""
    if len(found) != len(expected):
        return f"{len(found)} bytes, not {len(expected)}"
    at = next(n for n, (one, other) in enumerate(zip(found, expected, strict=True)) if one != other)
    return f"byte {at} is {found[at]}, not {expected[at]}"

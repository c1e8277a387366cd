"""The kinds of death, done to a command while it stands still at a point."""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from faults.command import Process
from faults.world import World
from lab.domains import LabDomain

SCRATCH_FULL = "scratch full"
FILLER = "filler"
_END_TIMEOUT_S = 20


def kill(world: World, domain: LabDomain, process: Process, target: Path) -> None:
    """SIGKILL, of the command and of the qemu-img that it runs, as a service manager does."""
    kill_process(process)


def kill_process(process: Process) -> None:
    """The same, wherever it stands still."""
    assert process.pid is not None
    children = _children(process.pid)
    process.kill()
    process.join()
    for pid in children:
        _kill_and_wait(pid)


def destroy(world: World, domain: LabDomain, process: Process, target: Path) -> None:
    """The domain loses its power; the command goes on."""
    domain.destroy()


def kill_and_destroy(world: World, domain: LabDomain, process: Process, target: Path) -> None:
    """Both at once, as when the host's power goes."""
    kill(world, domain, process, target)
    domain.destroy()


def kill_daemon(world: World, domain: LabDomain, process: Process, target: Path) -> None:
    """SIGKILL of libvirtd, which its service manager starts again; the command goes on."""
    world.daemon.kill()
    world.daemon.start()


def kill_and_kill_daemon(world: World, domain: LabDomain, process: Process, target: Path) -> None:
    """The command and libvirtd; the latter is started again before the clean."""
    kill(world, domain, process, target)
    world.daemon.kill()


def freeze_and_kill(world: World, domain: LabDomain, process: Process, target: Path) -> None:
    """libvirtd dies after it froze the guest and before it thaws it, and the command with it."""
    world.daemon.virsh("domfsfreeze", domain.name)
    kill_and_kill_daemon(world, domain, process, target)


def freeze_and_kill_daemon(world: World, domain: LabDomain, process: Process, target: Path) -> None:
    """The same, and the command goes on."""
    world.daemon.virsh("domfsfreeze", domain.name)
    kill_daemon(world, domain, process, target)


def fill(world: World, domain: LabDomain, process: Process, target: Path) -> None:
    """The target's file system is full; the command goes on."""
    _fill_up(target)


def fill_scratch(world: World, domain: LabDomain, process: Process, target: Path) -> None:
    """Scratch images find no room, and QEMU pauses the guest that writes; the command goes on."""
    _fill_up(world.scratch)
    domain.wait_paused()


def fill_scratch_and_kill(world: World, domain: LabDomain, process: Process, target: Path) -> None:
    """The same, and the command dies with it."""
    fill_scratch(world, domain, process, target)
    kill(world, domain, process, target)


Death = Callable[[World, LabDomain, Process, Path], None]
DEATHS: dict[str, Death] = {
    "killed": kill,
    "domain destroyed": destroy,
    "killed, domain destroyed": kill_and_destroy,
    "libvirtd killed": kill_daemon,
    "killed, libvirtd killed": kill_and_kill_daemon,
    "killed, libvirtd killed, guest frozen": freeze_and_kill,
    "libvirtd killed, guest frozen": freeze_and_kill_daemon,
    "target full": fill,
    SCRATCH_FULL: fill_scratch,
    f"killed, {SCRATCH_FULL}": fill_scratch_and_kill,
}


def _fill_up(place: Path) -> None:
    with (place / FILLER).open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(1 << 12)):
            pass


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (thread / "children").read_text().split())
    return found


def _kill_and_wait(pid: int) -> None:
    deadline = time.monotonic() + _END_TIMEOUT_S
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    while _lives(pid) and time.monotonic() < deadline:
        time.sleep(0.005)


def _lives(pid: int) -> bool:
    """A killed process is a zombie until its parent has taken note: that is dead enough."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False

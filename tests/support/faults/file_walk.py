"""Lets each file operation of a command fail in turn, and proves the target after each.

A process of its own, started with the library that fails (``failing_disk``): it forks a child for
each fault, which runs the command line; nothing fails in the parent, which looks at what is left::

    python -m faults.file_walk ROOT SCENE PACKAGER CODE once|from EVERY FIRST

Writes a line of JSON for each fault that broke a promise, and one with the counts at the end.
"""

import hashlib
import json
import os
import signal
import stat
import sys
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Final

import anyio
from msgspec import Struct

from faults.failing_disk import FailingDisk, Fault
from faults.file_scenes import FIRST, NOW, SCENES, Scene, Stage
from virtbackup_async.cli.commands import (  # noqa: F401 -- loaded once, before all children
    backup,
    clean,
    doctor,
    export,
    forget,
    listing,
    pin,
    repair,
    restore,
    stats,
    verify,
)  # fmt: skip
from virtbackup_async.cli.main import main
from virtbackup_async.config.loading import load_config
from virtbackup_async.engine.backup import session
from virtbackup_async.engine.clean.clean import run_clean
from virtbackup_async.engine.clean.request import CleanRequest
from virtbackup_async.engine.host_state import STATE_VARIABLE
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.engine.verify.repair import RepairRequest, run_repair
from virtbackup_async.errors import VirtBackupError
from virtbackup_async.events import BackupFailed, Event, RemovalFailed
from virtbackup_async.host import domain_locks, signs
from virtbackup_async.hypervisor import hypervisor as libvirt_side  # noqa: F401 -- as above
from virtbackup_async.packagers.repository import reader, writer  # noqa: F401 -- slow to load

TIMEOUT_S: Final = 60
_UNEXPECTED: Final = 1
_hours = count(50 * 24)


class Broken(Exception):  # noqa: N818 -- a promise, not an error
    """A promise that was not kept."""


class Met(Struct, frozen=True):
    """A fault that the command has met, where, and what promise was broken by it."""

    fault: Fault
    where: str
    broken: str | None


class Walk:
    """One scene with one packager.

    This process forks, and runs nothing that has threads: a fork beside one may never end.
    """

    def __init__(self, root: Path, scene: Scene, packager: str) -> None:
        self.scene = scene
        self.stage = Stage(root, packager)
        self.said = root / "said"
        self._runs = 0
        self._proven: set[bytes] = set()
        _stand_in(self.stage)
        problem = self._apart(partial(self.stage.make, scene.change))
        if problem is not None:
            raise RuntimeError(problem)
        self.disk = FailingDisk(self.stage.root)

    def faults(self, code: str, *, from_then: bool, every: int, first: int) -> Iterator[Met]:
        """Give the faults that the command meets, and end behind the last one.

        One with fewer calls than ``first`` begins at one that it has.
        """
        status = self._run(Fault(code, first, from_then))
        while self.disk.failed is None and self.disk.calls:
            first %= self.disk.calls
            status = self._run(Fault(code, first, from_then))
        for at in count(first, every):
            fault = Fault(code, at, from_then)
            if at != first:
                status = self._run(fault)
            where = self.disk.failed
            if where is None:
                return
            yield Met(fault, where, self._proof(fault, status))

    @property
    def states(self) -> int:
        """How many different states were left, and proven whole."""
        return len(self._proven)

    def _proof(self, fault: Fault, status: int) -> str | None:
        """Return what promise was broken, None if none was.

        What follows a command depends on what it left alone: it is proven once for each such state,
        most of which many faults share.
        """
        broken = self._apart(partial(self._prove_command, fault, status))
        if broken is not None:
            return broken
        left = _digest(self.stage.root)
        if left in self._proven:
            return None
        broken = self._apart(partial(anyio.run, self._prove_target))
        if broken is None:
            self._proven.add(left)
        return broken

    def _run(self, fault: Fault) -> int:
        self.stage.renew()
        self.disk.set(fault)
        try:
            return _ended(self._be_the_command)
        finally:
            self.disk.arm(armed=False)

    def _apart(self, work: Callable[[], None]) -> str | None:
        """Do something in a child; return what was wrong, None if nothing was."""
        self._runs += 1
        told = self.said.with_name("told")

        def tell() -> None:
            global _hours  # noqa: PLW0603 -- each child has a time of its own
            _hours = count((100 + self._runs) * 24)
            try:
                work()
            except Broken as error:
                told.write_text(str(error))
            except BaseException:  # noqa: BLE001 -- whatever it is, it is told
                told.write_text(traceback.format_exc()[-2000:])
            else:
                os._exit(0)

        status = _ended(tell)
        return None if status == 0 else f"{status}: {told.read_text() if status > 0 else ''}"

    def _be_the_command(self) -> None:
        said = os.open(self.said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(said, 1)
        os.dup2(said, 2)
        sys.argv = ["virtbackup", "-c", str(self.stage.config), *self.scene.words(self.stage)]
        self.disk.arm()
        try:
            main()
        except SystemExit as end:
            sys.stdout.flush()
            os._exit(end.code if isinstance(end.code, int) else 0)

    def _prove_command(self, fault: Fault, status: int) -> None:
        said = self.said.read_text(errors="replace")
        if status < 0:
            raise Broken(f"ended by signal {-status}, {TIMEOUT_S} s is for those that stand still")
        if status == _UNEXPECTED or "unexpected" in said or "Traceback" in said:
            raise Broken(f"exit {status}: {said[-600:]}")
        if status == 0 and not self.scene.is_done(self.stage, said):
            raise Broken(f"exit 0, and nothing done: {said[-300:]}")
        is_undone = status != 0 and not fault.from_then
        if (is_undone or not self.scene.replaces) and self.stage.image.read_bytes() != NOW:
            raise Broken(f"exit {status}, and the domain's image is another: {said[-300:]}")

    async def _prove_target(self) -> None:
        if self.scene is SCENES["repair"]:
            await self._go_on("repair", self._repair)
        else:
            await self._prove_listed("afterwards")
        await self._go_on("backup", self._back_up)
        await self._prove_listed("after the next backup")
        await self._go_on("clean", self._clean)
        await self._prove_listed("after the next clean")

    async def _go_on(self, what: str, run) -> None:
        events: list[Event] = []
        try:
            await run(load_config(self.stage.config), (), emit=events.append)
        except VirtBackupError as error:
            raise Broken(f"the next {what} fails: {error}") from error
        failed = [e for e in events if isinstance(e, BackupFailed | RemovalFailed)]
        if failed:
            raise Broken(f"the next {what} fails: {failed}")

    async def _back_up(self, config, groups, emit) -> None:
        async with self.stage.open_hypervisor() as hypervisor:
            await session.run_backup(
                Runtime(config, emit, hypervisor), session.BackupRequest(groups)
            )

    async def _clean(self, config, groups, emit) -> None:
        async with self.stage.open_hypervisor() as hypervisor:
            await run_clean(Runtime(config, emit, hypervisor), CleanRequest(groups))

    async def _repair(self, config, groups, emit) -> None:
        await run_repair(Runtime(config, emit, now=lambda: FIRST), RepairRequest(groups))

    async def _prove_listed(self, when: str) -> None:
        listed = await self.stage.listed()
        if not listed:
            raise Broken(f"nothing is listed {when}")
        for found in listed:
            try:
                data = await self.stage.content_of(found)
            except VirtBackupError as error:
                raise Broken(f"{found.definition.name} is lost {when}: {error}") from error
            if data != self.stage.expected_of(found):
                raise Broken(f"{found.definition.name} is another image {when}")


def _stand_in(stage: Stage) -> None:
    """Put what the walk controls in the place of libvirt, of the host's locks and of the clock."""
    for module in list(sys.modules.values()):
        if module.__name__.startswith("virtbackup_async.") and hasattr(module, "open_hypervisor"):
            _replace(module, "open_hypervisor", stage.open_hypervisor)
    _replace(domain_locks, "SYSTEM_DIRECTORY", stage.locks / "own")
    _replace(signs, "_DIRECTORY", stage.locks)
    os.environ[STATE_VARIABLE] = str(stage.state)
    defaults = Runtime.__init__.__kwdefaults__
    assert defaults
    assert "now" in defaults
    defaults["now"] = _later


def _replace(module: ModuleType, name: str, value: object) -> None:
    """Replace a name that is there: a new one would stand in for nothing."""
    assert hasattr(module, name), f"{module.__name__} has no {name} any more"
    setattr(module, name, value)


def _later():
    """Each backup has a second of its own."""
    return (FIRST + timedelta(hours=next(_hours))).astimezone()


def _digest(root: Path) -> bytes:
    """Names, modes and contents of all that lies below a directory."""
    digest = hashlib.blake2b()
    for path in sorted(root.rglob("*")):
        mode = path.lstat().st_mode
        digest.update(f"{path.relative_to(root)}\0{mode}\0".encode())
        if stat.S_ISLNK(mode):
            digest.update(os.fsencode(path.readlink()))
        elif stat.S_ISREG(mode):
            digest.update(hashlib.blake2b(path.read_bytes()).digest())
    return digest.digest()


def _ended(work: Callable[[], None]) -> int:
    """Do something in a child that is given a minute; return its exit code, or minus its signal."""
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(TIMEOUT_S)
            work()
        finally:
            os._exit(_UNEXPECTED)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def walk(root: str, scene: str, packager: str, code: str, how: str, every: str, first: str) -> None:
    one = Walk(Path(root), SCENES[scene], packager)
    met = broken = 0
    for each in one.faults(code, from_then=how == "from", every=int(every), first=int(first)):
        met += 1
        if each.broken is not None:
            broken += 1
            told = {"fault": str(each.fault), "where": each.where, "broken": each.broken}
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()
    counts = {"met": met, "broken": broken, "calls": one.disk.calls, "states": one.states}
    sys.stdout.write(json.dumps(counts) + "\n")


if __name__ == "__main__":
    walk(*sys.argv[1:])

"""One fault: a command that dies at a point, the undo, and the proof that nothing is lost.

The proof of a backup is what the disks held when they stood still (``references.py``): restored
must equal it byte for byte. A recorded digest alone would prove only that the package is what the
program had read.
"""

import contextlib
import filecmp
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from socket import gethostname
from typing import NamedTuple

from faults.command import Ended, Process, run_between
from faults.deaths import DEATHS, FILLER, SCRATCH_FULL, kill
from faults.references import References
from faults.world import World, configure, let_hours_pass
from lab.domains import LabDomain
from virtbackup_async.catalog.config_copy import file_name
from virtbackup_async.catalog.history import FILE
from virtbackup_async.model.names import is_temporary
from virtbackup_async.repository.storage.layout import DIRECTORY

UNDO = ("clean", "-b")
INCREMENTAL = "backup, incremental"
_SNAPSHOT = "after snapshotCreateXML"
_TARGET_MIB = 24
_SCRATCH_MIB = 8


class Row(NamedTuple):
    """A line of the table: ``command`` and ``after`` are what came of it."""

    scenario: str
    point: str
    death: str
    command: str = ""
    after: str = ""


@dataclass(frozen=True)
class Scenario:
    """What is running when the fault comes.

    Attributes:
        domain: which of the world's.
        words: the command; ``{}`` is a directory to restore into.
        prepare: what the command finds.
        group: of the configuration.
    """

    domain: Callable[[World], LabDomain]
    # Without estimates: they are made meanwhile, so their points would come in any order.
    words: tuple[str, ...] = ("backup", "--no-progress")
    prepare: Callable[["Fault"], None] = lambda _fault: None
    group: Mapping[str, object] = field(default_factory=dict)


class Fault:
    """One row on its way; ``Fault(...).happen()`` raises AssertionError or returns the row."""

    def __init__(self, world: World, directory: Path, row: Row) -> None:
        self.world = world
        self.row = row
        self.scenario = SCENARIOS[row.scenario]
        self.domain = self.scenario.domain(world)
        self.directory = directory
        self.target = directory / "target"
        self.state = directory / "state"
        self.restored = directory / "restored"
        self.config = configure(directory, world, self.domain.name, **self.scenario.group)
        self.references = References(world, self.domain, directory)
        self._older_checkpoints = world.checkpoints(self.domain)

    def record(self) -> Sequence[str]:
        """Return the points that the command passes undisturbed, in order."""
        with self.world.mended(self.domain):
            self.world.make_room(self.domain)
            self.world.write(self.domain, 5)
            self.scenario.prepare(self)
            words = [word.format(self.restored) for word in self.scenario.words]
            points = self._succeed(*words).points
            self._start_again()
            return points

    def happen(self) -> Row:
        """Run the command into its fault, undo, check; return the row with what came of it."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.world.mended(self.domain))
            if self.row.death == "target full":
                stack.enter_context(_small_file_system(self.target, _TARGET_MIB))
            if SCRATCH_FULL in self.row.death:
                stack.enter_context(_small_file_system(self.world.scratch, _SCRATCH_MIB))
            return self._happen()

    def _happen(self) -> Row:
        self.world.make_room(self.domain)
        self.world.write(self.domain, 5)
        self.scenario.prepare(self)
        died = False

        def on_point(name: str, process: Process) -> None:
            nonlocal died
            self.references.watch(name)
            if name == self.row.point:
                self.world.write(self.domain, 9)
                DEATHS[self.row.death](self.world, self.domain, process, self.target)
                died = True

        words = [word.format(self.restored) for word in self.scenario.words]
        ended = run_between(("-c", self.config, *words), on_point, state=self.state)
        assert died, f"no point {self.row.point!r} in {ended.points}"
        for place in (self.target, self.world.scratch):
            (place / FILLER).unlink(missing_ok=True)
        backups = self._undo_and_check()
        self.world.assert_written(self.domain)
        self._check_use()
        command = "killed" if ended.returncode == -9 else f"exit {ended.returncode}"
        return self.row._replace(command=command, after=_count(len(backups)))

    def back_up(self) -> None:
        """Make a whole backup."""
        self._succeed("backup")

    def kill_backup(self, point: str = _SNAPSHOT) -> None:
        """Leave a backup that was killed at a point."""

        def on_point(name: str, process: Process) -> None:
            if name == point:
                kill(self.world, self.domain, process, self.target)

        ended = run_between(("-c", self.config, "backup"), on_point, state=self.state)
        assert ended.returncode == -9, ended

    def _undo_and_check(self) -> list[str]:
        """Return the backups that are there after the undo; all of them are good."""
        self.world.daemon.ensure_started()
        self.references.let_go()
        for place in (self.target, self.state):
            let_hours_pass(place)
        self._succeed(*UNDO)
        self.world.assert_at_home(self.domain)
        backups = self._listed()
        self._assert_only(backups)
        self._assert_checkpoints_of(backups)
        for backup in backups:
            self._check_restored(backup)
        return backups

    def _listed(self) -> list[str]:
        return _backups(self._succeed("list", "--json"))

    def _assert_checkpoints_of(self, backups: Sequence[str]) -> None:
        """libvirt knows the newest's checkpoint, and none that was made since for no backup."""
        known = self.world.checkpoints(self.domain) - self._older_checkpoints
        named = [self._checkpoints_of(backup) for backup in backups]
        left = known.difference(*named)
        assert not left, f"left: checkpoints {left}"
        lost = named[-1] - known if named else set()
        assert not lost, f"there is nothing to go on from: {lost}"

    def _checkpoints_of(self, backup: str) -> set[str]:
        path = self.target / self.domain.name / f"{backup}.json"
        images = json.loads(path.read_text())["images"].values()
        readings = [image["reading"] for image in images if image.get("reading")]
        return {reading["checkpoint"] for reading in readings if reading.get("checkpoint")}

    def _assert_only(self, backups: Sequence[str]) -> None:
        """Nothing but those backups is in the target, and without any a repository has no data."""
        names = ("repository", "reserve-", *backups)
        for path in self.target.rglob("*"):
            is_kept = path.suffix == ".index" or (path.suffix == ".pack" and backups)
            if path.parent == self.target and _is_of_the_target(path.name):
                continue
            if path.is_file() and not (DIRECTORY in path.parts and is_kept):
                assert path.name.startswith(names), f"left: {path.relative_to(self.target)}"
                assert not path.name.endswith((".pending", ".removed")), f"left: {path.name}"
        memory = self.state / "heads"
        files = [path for path in self.state.rglob("*") if path.is_file()]
        notes = [path.name for path in files if memory not in path.parents]
        assert notes == [], "left: notes of this host"

    def _check_restored(self, backup: str) -> None:
        place = self.directory / f"of-{backup}"
        self._succeed("restore", "all", self.domain.name, place, "--date", backup)
        self.references.assert_one_is(place, backup)

    def _check_use(self) -> None:
        """The guest works, and the command does when it is run again."""
        if self.domain is self.world.live:
            assert self.domain.agent("guest-fsfreeze-status") == "thawed"
        self._start_again()
        if "restore" in self.scenario.words:
            self._check_restore_again()
        elif "copy" in self.scenario.words:
            self._check_copy_again()
        else:
            self._succeed("backup")
            self.world.assert_at_home(self.domain)
            if self.row.scenario == INCREMENTAL:
                self._check_next()

    def _check_next(self) -> None:
        """What was backed up after all that is right, and the checkpoint is its alone."""
        newest = self._listed()[-1]
        self._assert_checkpoints_of([newest])
        del self.references.taken[:-1]
        self._check_restored(newest)

    def _check_restore_again(self) -> None:
        """What has its name is whole, and stays; what has none does not stand in the way."""
        images = self.references.taken[0]
        named = [path for path in images if (self.restored / path.name).exists()]
        for path in named:
            assert filecmp.cmp(path, self.restored / path.name, shallow=False), path.name
        described = self.restored / f"{self.domain.name}.xml"
        assert not described.exists() or described.read_text().endswith("</domain>\n")
        if named or described.exists():
            self.restored = self.directory / "elsewhere"
        self._succeed("restore", "all", self.domain.name, self.restored)
        assert {path.name for path in self.restored.iterdir()} == {
            *(path.name for path in images),
            f"{self.domain.name}.xml",
        }

    def _check_copy_again(self) -> None:
        """What is listed there is whole, and the next copy brings the rest; nothing else is left.

        Afterwards the source is not needed any more.
        """
        there = ("--target", self.restored, "--json")
        before = _backups(self._succeed_without_config("list", *there))
        self._succeed(*(word.format(self.restored) for word in self.scenario.words))
        (backup,) = _backups(self._succeed_without_config("list", *there))
        assert before in ([], [backup])
        files = (path.name for path in (self.restored / self.domain.name).iterdir())
        # `clean` removes a killed process's temporary file once it is an hour old.
        names = [name for name in files if not is_temporary(name)]
        assert all(name.startswith(backup) for name in names), names
        assert not [name for name in names if name.endswith(".pending")]
        shutil.rmtree(self.target)
        place = self.directory / "of-the-copy"
        self._succeed_without_config("restore", "--target", self.restored, self.domain.name, place)
        self.references.assert_one_is(place, backup)

    def _succeed_without_config(self, *words: object) -> Ended:
        ended = run_between(words, lambda _name, _process: None, state=self.state)
        assert ended.returncode == 0, f"{words}: {ended.returncode} {ended.err}"
        return ended

    def _start_again(self) -> None:
        if self.domain is self.world.plain and self.domain.state() == "shut off":
            self.domain.start()

    def _succeed(self, *words: object) -> Ended:
        ended = run_between(
            ("-c", self.config, *words),
            lambda name, _: self.references.watch(name),
            state=self.state,
        )
        assert ended.returncode == 0, f"{words}: {ended.returncode} {ended.err}"
        return ended


def _backups(ended: Ended) -> list[str]:
    """Return the backups that ``list --json`` shows."""
    events = [json.loads(line) for line in ended.out.splitlines()]
    assert not [event for event in events if event["event"] == "warning"]
    return sorted(event["backup"] for event in events if event["event"] == "backup")


def _count(backups: int) -> str:
    return {0: "no backup", 1: "1 backup"}.get(backups, f"{backups} backups")


@contextlib.contextmanager
def _small_file_system(place: Path, size_mib: int) -> Iterator[None]:
    options = f"size={size_mib}m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


def _kill_running(fault: Fault) -> None:
    fault.kill_backup()


def _back_up_once(fault: Fault) -> None:
    fault.back_up()
    fault.world.write(fault.domain, 5)
    # The next one would have to try for its name twice in the same second: points of chance.
    second = int(time.time())
    while int(time.time()) == second:
        time.sleep(0.005)


def _back_up_and_make_place(fault: Fault) -> None:
    fault.back_up()
    fault.restored.mkdir()


def _start(fault: Fault) -> None:
    if fault.domain.state() == "shut off":
        fault.domain.start()


def _kill_and_destroy(fault: Fault) -> None:
    fault.kill_backup()
    fault.domain.destroy()


_DIRECTORY = {"packager": "directory"}
_PULL = {"method": "pull"}
_TAR_GZ = {"packager": "tar", "packager_opts": {"compression": "gz", "compression_lvl": 1}}
SCENARIOS = {
    "backup, running": Scenario(attrgetter("live"), group={**_DIRECTORY, "quiesce": True}),
    "backup, running, tar.gz": Scenario(attrgetter("live"), group={**_TAR_GZ, "quiesce": True}),
    "backup, shut off": Scenario(attrgetter("at_rest"), group=_DIRECTORY),
    "backup, shut off, tar.gz": Scenario(attrgetter("at_rest"), group=_TAR_GZ),
    "backup, no agent": Scenario(attrgetter("plain"), group=_DIRECTORY),
    "backup, pull": Scenario(attrgetter("live"), group={**_PULL, **_DIRECTORY, "quiesce": True}),
    INCREMENTAL: Scenario(
        attrgetter("plain"), prepare=_back_up_once, group={**_PULL, "packager": "repository"}
    ),
    "backup, pull, no agent": Scenario(attrgetter("plain"), group={**_PULL, **_DIRECTORY}),
    "backup, flash memory": Scenario(attrgetter("uefi"), prepare=_start, group=_DIRECTORY),
    "undo, running": Scenario(attrgetter("live"), UNDO, _kill_running, _DIRECTORY),
    "undo, destroyed": Scenario(attrgetter("plain"), UNDO, _kill_and_destroy, _DIRECTORY),
    "restore": Scenario(
        attrgetter("live"), ("restore", "all", "live", "{}"), Fault.back_up, _DIRECTORY
    ),
    "copy": Scenario(
        attrgetter("live"),
        ("copy", "--to", "{}", "--packager", "directory", "--no-progress"),
        _back_up_and_make_place,
        _DIRECTORY,
    ),
}


def _is_of_the_target(name: str) -> bool:
    """Return whether a file is no backup's, but the target's, or one that was to become such."""
    return name in {FILE, file_name(gethostname())} or is_temporary(name)

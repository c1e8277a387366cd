"""A target with every kind of file that there can be, and every command that works on one."""

import os
import shutil
import socket
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import yaml

from fakes.hypervisor import DescribedDomain, FakeHypervisor
from fakes.site import DAY_S, NOW
from fakes.stored_backup import DATE, StoredBackup
from virtbackup_async.catalog.scanning import FoundBackup
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.config.loading import load_config
from virtbackup_async.config.schema import Config
from virtbackup_async.engine.backup.session import BackupRequest, run_backup
from virtbackup_async.engine.clean.clean import run_clean
from virtbackup_async.engine.clean.forget import ForgetRequest, run_forget
from virtbackup_async.engine.clean.request import CleanRequest
from virtbackup_async.engine.doctor.examination import DoctorRequest, run_doctor
from virtbackup_async.engine.inventory.chosen_backup import PinRequest, set_pinned
from virtbackup_async.engine.inventory.listing import list_backups
from virtbackup_async.engine.inventory.show import ShowRequest, run_show
from virtbackup_async.engine.inventory.stats import StatsRequest, run_stats
from virtbackup_async.engine.restore.export import ExportRequest, export_disk
from virtbackup_async.engine.restore.to_directory import RestoreRequest, restore_backup
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.engine.verify.filters import VerifyRequest
from virtbackup_async.engine.verify.repair import RepairRequest, run_repair
from virtbackup_async.engine.verify.verify import run_verify
from virtbackup_async.errors import VirtBackupError
from virtbackup_async.events import BackupFailed, Event, RemovalFailed, VerifyFailed
from virtbackup_async.model.backup import Packager
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository.format import sealed_json

PACKAGERS = ("directory", "tar", "zstd", "repository")
OLD_S = DATE - 30 * DAY_S


class Guest(DescribedDomain):
    """A guest that is shut off, whose backups one of the packagers makes."""

    def __init__(self, packager: str, image: Path) -> None:
        super().__init__({"vda": image}, active=False)
        self.name = packager
        self.uuid = f"{self.uuid[:-1]}{PACKAGERS.index(packager)}"


class FullSite:
    """A target, a guest that is shut off, and somebody else's files beside the target.

    What is beside it looks like the target: links into it lead to what a careless program would
    take for its own, and remove.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.target = root / "target"
        self.outside = root / "outside"
        # The host's: what a target lacks, they have.
        self.locks = root.with_name(f"locks-of-{root.name}")
        self.image = root / "fake.raw"
        self.found: list[FoundBackup] = []
        self.failures: list[str] = []
        self.events: list[Event] = []

    @property
    def repository(self) -> Path:
        return self.target / ".virtbackup-repository"

    async def fill(self) -> None:
        """Make backups by all packagers, and what a crash, a prune and a repair leave."""
        self.locks.mkdir(parents=True)
        for packager in PACKAGERS:
            for day in range(2):
                date = DATE + day * DAY_S
                await StoredBackup(self.target, Packager(packager), packager, date).make(self.image)
        directory = self.target / "directory"
        name = "20250101-021500_3_directory"
        (directory / f"{name}.json.pending").write_bytes(b"")
        (directory / f"{name}_vda.raw").write_bytes(b"stray")
        (directory / f".virtbackup-{'0' * 16}.tmp").write_bytes(b"half")
        removed = StoredBackup(self.target, Packager("directory"), "directory", DATE - DAY_S)
        await removed.make(self.image)
        removed.path.rename(f"{removed.path}.removed")
        leases = self.repository / "leases"
        (leases / f".{'0' * 16}").write_bytes(b"half")
        (self.repository / "index" / f".virtbackup-{'0' * 16}.tmp").write_bytes(b"half")
        for token in ("0a" * 12, "sweep"):
            (leases / token).write_bytes(sealed_json.dumps({"host": "another", "pid": 1}))
        (self.repository / "condemned").write_bytes(
            sealed_json.dumps({"packs": ["00" * 16], "waiting_for": []})
        )
        (self.repository / "damaged").write_bytes(sealed_json.dumps({"maps": {}}))
        for path in self.target.rglob("*"):
            os.utime(path, (OLD_S, OLD_S))
        shutil.copytree(self.target, self.outside)
        (self.outside / "passwd").write_text("root")
        (self.outside / ".virtbackup-repository" / "leases" / "shadow").write_text("root")

    def copy_to(self, root: Path) -> "FullSite":
        """Return the same site in another place."""
        shutil.copytree(self.root, root, symlinks=True)
        return FullSite(root)

    def places(self) -> list[Path]:
        """One path for each kind of directory and file in the target, relative to it."""
        kinds: dict[str, Path] = {}
        for path in sorted(self.target.rglob("*")):
            kinds.setdefault(_kind(path), path.relative_to(self.target))
        return list(kinds.values())

    def seen_outside(self) -> list[tuple[object, ...]]:
        """All that there is beside the target: names, content, times, modes."""
        return [_look(path) for path in sorted((self.outside, *self.outside.rglob("*")))]

    def config(self) -> Config:
        groups = {
            packager: {"target": str(self.target), "packager": packager, "hosts": [packager],
                       "autostart": True, "hourly": 0, "daily": 1, "weekly": 0, "monthly": 0,
                       "yearly": 0}
            for packager in PACKAGERS
        }  # fmt: skip
        path = self.root / "config.yml"
        path.write_text(yaml.safe_dump({"groups": groups, "threads": 1}))
        return load_config(path)

    def hypervisor(self) -> FakeHypervisor:
        return FakeHypervisor(*(Guest(packager, self.image) for packager in PACKAGERS))

    async def run(self, command: str) -> None:
        """Run a command; what fails must be an error of ours, and is noted."""
        self.events.clear()
        await self.attempt(COMMANDS[command](self))
        for event in self.events:
            if isinstance(event, BackupFailed | VerifyFailed | RemovalFailed):
                self._note(event.error)

    async def attempt(self, work: Awaitable[object]) -> None:
        """Wait for what may fail by an error of ours, and by no other."""
        try:
            await work
        except VirtBackupError as error:
            self._note(str(error))

    def _note(self, failure: str) -> None:
        assert "unexpected" not in failure
        self.failures.append(failure)

    def runtime(self) -> Runtime:
        return Runtime(
            self.config(),
            self.events.append,
            self.hypervisor(),
            lock_directory=self.locks,
        )

    async def backup(self, packager: str) -> None:
        await run_backup(self.runtime(), BackupRequest([packager], wait_s=60))

    async def listing(self) -> None:
        await list_backups(self.config(), [], [], known_domains=PACKAGERS)
        self.found = list((await Catalog(StorageLocation.of(self.target)).scan()).complete)

    async def verify(self, *, quick: bool) -> None:
        await run_verify(self.runtime(), VerifyRequest(quick=quick))

    async def restore(self) -> None:
        for number, found in enumerate(self.found):
            place = self.root / "restored" / str(number)
            request = RestoreRequest(found.definition, found.path.parent, place)
            await self.attempt(restore_backup(self.runtime(), request))

    async def export(self) -> None:
        (self.root / "exported").mkdir(exist_ok=True)
        for number, found in enumerate(self.found):
            output = self.root / "exported" / str(number)
            request = ExportRequest(found.definition, found.path.parent, "vda", output, "raw")
            await self.attempt(export_disk(self.runtime(), request))

    async def clean(self) -> None:
        request = CleanRequest(drop_damaged=True, wait_s=60)
        await run_clean(self.runtime(), request)

    async def repair(self) -> None:
        await run_repair(self.runtime(), RepairRequest())

    async def stats(self) -> None:
        await run_stats(self.runtime(), StatsRequest(each_backup=True))

    async def pin(self) -> None:
        date = (NOW - timedelta(days=10)).strftime("%Y%m%d-%H%M%S")
        for packager in PACKAGERS:
            request = PinRequest(packager, packager, date)
            await self.attempt(set_pinned(self.runtime(), request))

    async def forget(self) -> None:
        for packager in PACKAGERS:
            names = [f"{packager}@latest"]
            request = ForgetRequest(names, packager, unpin=True, allow_newest=True, wait_s=60)
            await self.attempt(run_forget(self.runtime(), request))

    async def show(self) -> None:
        for found in self.found:
            name = f"{found.definition.domain_name}@{found.definition.name}"
            await self.attempt(run_show(self.runtime(), ShowRequest(name)))

    async def doctor(self) -> None:
        await run_doctor(self.runtime(), DoctorRequest())


COMMANDS: dict[str, Callable] = {
    "list": FullSite.listing,
    "stats": FullSite.stats,
    "show": FullSite.show,
    "doctor": FullSite.doctor,
    "verify --quick": lambda site: site.verify(quick=True),
    "verify": lambda site: site.verify(quick=False),
    "restore": FullSite.restore,
    "export": FullSite.export,
    "pin": FullSite.pin,
    **{
        f"backup {packager}": lambda site, packager=packager: site.backup(packager)
        for packager in PACKAGERS
    },
    "clean": FullSite.clean,
    "repair": FullSite.repair,
    "clean again": FullSite.clean,
    "forget": FullSite.forget,
}


def _kind(path: Path) -> str:
    """What a path is one of: digits do not matter, but those of backups of other packagers do."""
    if path.parent.name == "packs":
        return "directory of packs"
    if path.name in PACKAGERS:
        return "directory of a domain"
    if path.suffix in {".pack", ".index", ".map", ".zstd", ".tar", ".raw", ".pending", ".removed"}:
        return path.suffix
    if path.suffix == ".json":
        return "definition"
    return path.name


def _look(path: Path) -> tuple[object, ...]:
    status = path.lstat()
    content = path.read_bytes() if path.is_file() else None
    return str(path), status.st_mode, status.st_mtime_ns, content


def a_link_outside(path: Path, site: FullSite) -> None:
    path.symlink_to(site.outside / path.relative_to(site.target))


def a_dangling_link(path: Path, _site: FullSite) -> None:
    path.symlink_to("nowhere")


def a_link_to_itself(path: Path, _site: FullSite) -> None:
    path.symlink_to(path)


def a_pipe(path: Path, _site: FullSite) -> None:
    os.mkfifo(path)


def a_socket(path: Path, _site: FullSite) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/cwd/{os.path.relpath(path)}")


def a_directory(path: Path, _site: FullSite) -> None:
    path.mkdir()
    (path / "something").write_text("x")


def a_hard_link(path: Path, site: FullSite) -> None:
    beside = site.outside / path.relative_to(site.target)
    if beside.is_file():
        path.hardlink_to(beside)


ODDITIES = (
    a_link_outside, a_dangling_link, a_link_to_itself, a_pipe, a_socket, a_directory, a_hard_link,
)  # fmt: skip

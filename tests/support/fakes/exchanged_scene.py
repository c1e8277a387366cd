"""An encrypted target with files of each kind, their older states, and what commands say of it."""

import shutil
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from fakes.rolling_site import RollingSite
from virtbackup_async.catalog.config_copy import save_config_copy
from virtbackup_async.catalog.history import append_run
from virtbackup_async.engine.restore.to_directory import RestoreRequest, restore_backup
from virtbackup_async.engine.survey.survey import survey
from virtbackup_async.errors import VirtBackupError
from virtbackup_async.events import (
    BackupFailed,
    BrokenBackup,
    DiskDamaged,
    Finding,
    Level,
    RemovalFailed,
    RepositoryDamaged,
    VerifyFailed,
    Warned,
)
from virtbackup_async.model.run_record import RunRecord
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.reporting.overview.build import build_overview
from virtbackup_async.repository import (
    Kind,
    find_repository,
    key_of_file,
    make_repository,
    open_key_changes,
)
from virtbackup_async.repository.storage import opened
from virtbackup_async.repository.storage.leases import take_lease

_BAD = (BackupFailed, BrokenBackup, DiskDamaged, RemovalFailed, RepositoryDamaged, VerifyFailed)
_REPOSITORY = ".virtbackup-repository"
_RUN = RunRecord("0" * 32, "backup", "host", "1.0.0", 0.0, 1.0, 0)


class ExchangedScene:
    """A host, its encrypted target as it is now and as it was, and another repository.

    Attributes:
        now: the target with three backups.
        before: the target with the first of them.
        files: the sealed paths in it, by kind; the first is the one to tamper with.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.key_file = root / "key"
        self.site = RollingSite(root, "repository", encryption={"key_file": str(self.key_file)})
        self.location = StorageLocation("file", str(self.site.target), key_file=self.key_file)
        self.now = root / "now"
        self.before = root / "before"
        self.state = root / "state-now"
        self.contents: list[bytes] = []
        self.files: dict[str, list[Path]] = {}
        self.others: dict[str, Path] = {}

    async def build(self) -> None:
        await self._back_up()
        await append_run(self.location, _RUN, create=True)
        await save_config_copy(self.location, "host", b"a: 1", create=True)
        shutil.copytree(self.site.target, self.before)
        open_key_changes(self.location, key_of_file(self.key_file)).rotate()
        await self._back_up()
        await self._back_up()
        await self.site.verify(now=self.site.now())
        await append_run(self.location, _RUN, create=True)
        await save_config_copy(self.location, "host", b"a: 2", create=True)
        await save_config_copy(self.location, "other", b"a: 3", create=True)
        other = self.root / "other"
        other.mkdir()
        make_repository(StorageLocation("file", str(other), key_file=self.key_file))
        self._find_files(other)
        self._leave_leases()
        shutil.copytree(self.site.target, self.now)
        shutil.copytree(self.site.state(), self.state)

    async def _back_up(self) -> None:
        number = len(self.contents) + 1
        self.contents.append(b"".join(bytes([number, n]) * 131072 for n in range(4)))
        self.site.image.write_bytes(self.contents[-1])
        await self.site.make()

    def _find_files(self, other: Path) -> None:
        repository = find_repository(self.location)
        assert repository is not None
        storage = repository.storage
        domains = storage.names("", {Kind.DIRECTORY})
        (domain,) = [name for name in domains if name.startswith("fake")]
        names = sorted(storage.names(domain, {Kind.FILE}), reverse=True)
        packs, index = (f"{_REPOSITORY}/{name}" for name in ("packs", "index"))
        self.files = {
            "definition": [self._sealed(domain, n) for n in names if n.endswith(".json")],
            "map": [self._sealed(domain, n) for n in names if n.endswith(".map")],
            "pack": self._within(packs),
            "segment": self._within(index),
            "history": [
                self._sealed(".virtbackup-runs", name)
                for name in storage.names(".virtbackup-runs", {Kind.FILE})
            ],
            "configuration copy": [
                self._sealed("", f".virtbackup-config.{host}.yml") for host in ("host", "other")
            ],
            "key slot": self._within(f"{_REPOSITORY}/keys"),
            "repository": [Path(_REPOSITORY, "repository")],
        }
        self.others = {
            "repository": other / _REPOSITORY / "repository",
            "key slot": next((other / _REPOSITORY / "keys").iterdir()),
        }

    def _within(self, directory: str) -> list[Path]:
        place = self.site.target / directory
        files = [path for path in place.rglob("*") if path.is_file()]
        newest = sorted(files, key=lambda path: path.stat().st_mtime_ns, reverse=True)
        return [path.relative_to(self.site.target) for path in newest]

    def _sealed(self, directory: str, name: str) -> Path:
        storage: Any = find_repository(self.location).storage  # type: ignore[union-attr]
        above = storage.sealed_step("", directory) if directory else ""
        return Path(above, storage.sealed_step(directory, name))

    def _leave_leases(self) -> None:
        """Leave the leases of two dead writers, as a copy of the target has them."""
        repository = find_repository(self.location)
        assert repository is not None
        leases = self.site.target / _REPOSITORY / "leases"
        held = [take_lease(repository.storage, digit * 24) for digit in "12"]
        kept = {path: path.read_bytes() for path in leases.iterdir()}
        for lease in held:
            lease.close()
        for path, content in kept.items():
            path.write_bytes(content)
        self.files["lease"] = [path.relative_to(self.site.target) for path in sorted(kept)]

    def set_up(self) -> None:
        """Put the target and the host's memory back to what they are now, as a new process."""
        opened._kept.clear()
        for kept, place in ((self.now, self.site.target), (self.state, self.site.state())):
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(kept, place)
        self.site.day = len(self.contents)

    def tamper(self, kind: str, deed: str) -> None:
        """Do something to a file of a kind; LookupError if there is no such file to do it with."""
        target = self.site.target
        if kind == "whole target":
            shutil.rmtree(target)
            shutil.copytree(self.before, target)
            return
        file, *alike = self.files[kind]
        if deed == "removed":
            (target / file).unlink()
            return
        if deed == "exchanged":
            source = self.others.get(kind) or target / alike[-1]
        else:
            # The file that was there before is the oldest of its kind.
            file = next(one for one in reversed([file, *alike]) if (self.before / one).exists())
            source = self.before / file
            if source.read_bytes() == (target / file).read_bytes():
                raise LookupError(kind)
        shutil.copyfile(source, target / file)

    async def who_notices(self) -> dict[str, Counter[str]]:
        """Return, by command, all that it says that is no good news."""
        site = self.site
        return {
            "doctor": await self._said(site.doctor),
            "list": await self._said(site.listed),
            "status": await self._said(self._status),
            "restore": await self._said(self._restore),
            "verify": await self._said(lambda: site.verify(now=site.now())),
            "clean": await self._said(site.clean),
            "backup": await self._said(self._next_backup),
        }

    async def _said(self, command: Callable[[], Coroutine[Any, Any, object]]) -> Counter[str]:
        said: Counter[str] = Counter()
        try:
            result = await command()
        except VirtBackupError as error:
            said[type(error).__name__] += 1
            result = None
        if isinstance(result, frozenset):
            said.update(result)
        for event in self.site.events:
            if isinstance(event, Finding) and event.level in (Level.PROBLEM, Level.WARNING):
                said[event.code or ""] += 1
            if isinstance(event, Warned):
                said[event.code or "warning"] += 1
            if isinstance(event, _BAD):
                said[type(event).__name__] += 1
        return said

    async def _status(self) -> frozenset[str]:
        overview = build_overview(await survey(self.site.runtime()))
        reasons = [reason for guest in overview.guests for reason in guest.reasons]
        errors = [target.error or "" for target in overview.capacity]
        return frozenset(filter(None, (*overview.problems, *reasons, *errors)))

    async def _restore(self) -> None:
        """Restore every backup; no wrong byte may come out of it."""
        scan = await self.site.runtime().host.catalog(self.location).scan()
        place = self.root / "restored"
        found = [await self.site.find()]
        found += [one for one in scan.complete if one.path != found[0].path]
        for one in found:
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            runtime = self._same_runtime()
            await restore_backup(runtime, RestoreRequest(one.definition, one.path.parent, place))
            number = one.definition.sequence or 0
            (image,) = place.glob("*.raw")
            assert image.read_bytes() == self.contents[number - 1], "wrong data was believed"

    def _same_runtime(self) -> Any:
        said = list(self.site.events)
        runtime = self.site.runtime()
        self.site.events.extend(said)
        return runtime

    async def _next_backup(self) -> None:
        self.site.day += 1
        with suppress(ValueError):
            await self.site.back_up(method="snapshot")

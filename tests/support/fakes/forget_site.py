"""A target from which backups are forgotten, and the ways in which a backup breaks."""

import json
from pathlib import Path
from typing import Any

from fakes.shared_site import SharedSite
from fakes.site import DAY_S, DIRECTORY, NOW
from fakes.stored_backup import DATE, StoredBackup
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.engine.clean.clean import run_clean
from virtbackup_async.engine.clean.forget import ForgetRequest, ForgetRun, run_forget
from virtbackup_async.engine.clean.request import CleanRequest
from virtbackup_async.model.backup import Packager
from virtbackup_async.model.storage_location import StorageLocation


class ForgetSite(SharedSite):
    """A site from which backups are forgotten; no rule removes one."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, keep_last=99)

    async def store_three(self, packager: Packager = DIRECTORY) -> list[StoredBackup]:
        return [await self.store(packager, date=DATE + day * DAY_S) for day in range(3)]

    async def forget(self, *stored: StoredBackup, **request: Any) -> ForgetRun:
        """Forget backups by their own names."""
        return await self.forget_names(*(f"{one.domain}@{one.name}" for one in stored), **request)

    async def forget_names(self, *names: str, **request: Any) -> ForgetRun:
        return await run_forget(self.runtime(now=lambda: NOW), ForgetRequest(names, **request))

    async def clean(self) -> None:
        await run_clean(self.runtime(now=lambda: NOW), CleanRequest())

    async def listed(self) -> list[str]:
        return [
            found.definition.name
            for found in (await Catalog(StorageLocation.of(self.target)).scan()).complete
        ]

    def files(self) -> list[str]:
        return sorted(path.name for path in self.target.glob("*/*") if path.is_file())

    def files_of(self, stored: StoredBackup) -> list[str]:
        return [name for name in self.files() if name.startswith(stored.name)]


def lose_data(stored: StoredBackup) -> None:
    stored.package.unlink()


def garble(stored: StoredBackup) -> None:
    stored.path.write_bytes(b"{\0")


def empty(stored: StoredBackup) -> None:
    stored.path.write_bytes(b"")


def flip_bit(stored: StoredBackup) -> None:
    raw = json.loads(stored.path.read_text())
    stored.path.write_text(json.dumps({**raw, "domain_id": 4}))


def link(stored: StoredBackup) -> None:
    aside = stored.path.parents[2] / "aside.json"
    stored.path.rename(aside)
    stored.path.symlink_to(aside)

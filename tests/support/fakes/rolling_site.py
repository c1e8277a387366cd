"""A host whose target can be brought back to an older state."""

import json
import os
import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from fakes.hypervisor import DescribedDomain
from fakes.site import NOW, Site
from virtbackup_async.catalog import definition_file
from virtbackup_async.catalog.checksum import checksum_of
from virtbackup_async.engine.clean.clean import run_clean
from virtbackup_async.engine.clean.forget import ForgetRequest, run_forget
from virtbackup_async.engine.clean.request import CleanRequest
from virtbackup_async.engine.doctor.examination import DoctorRequest, run_doctor
from virtbackup_async.engine.inventory.accept import AcceptRequest, run_accept
from virtbackup_async.engine.inventory.chosen_backup import FindRequest, find_backup_to_read
from virtbackup_async.engine.inventory.listing import ListRequest, run_list
from virtbackup_async.events import BackupDone, Warned
from virtbackup_async.model.backup import Definition

OLDER, EXCHANGED, FORKED = "target_rolled_back", "definition_exchanged", "definitions_forked"


class RollingSite(Site):
    """A host whose target can be brought back to an older state; a day passes at each backup."""

    def __init__(self, root: Path, packager: str = "directory", **group: Any) -> None:
        self.image = root / "vda.raw"
        self.image.write_bytes(os.urandom(65536))
        super().__init__(root, DescribedDomain({"vda": self.image}), packager=packager, **group)
        self.day = 0

    def runtime(self, config=None, *, now=None):
        return super().runtime(config, now=now or self.now)

    def now(self) -> datetime:
        return NOW + timedelta(days=self.day)

    async def make(self, count: int = 1) -> BackupDone:
        """Back up, a day later each time."""
        made = []
        for _ in range(count):
            self.day += 1
            done = await self.back_up(method="snapshot")
            assert isinstance(done, BackupDone), done
            made.append(done)
        return made[-1]

    def save(self) -> Path:
        saved = self.root / f"saved-{len(list(self.root.glob('saved-*')))}"
        return Path(shutil.copytree(self.target, saved))

    def bring_back(self, saved: Path) -> None:
        shutil.rmtree(self.target)
        shutil.copytree(saved, self.target)

    def paths(self) -> list[Path]:
        return sorted((self.target / "fake").glob("*.json"))

    def definitions(self) -> list[Definition]:
        return [definition_file.loads(path.read_bytes(), path) for path in self.paths()]

    def change(self, path: Path, **keys: object) -> None:
        """Change a definition as somebody does who knows how: its checksum is right."""
        raw = json.loads(path.read_bytes()) | keys
        path.write_text(json.dumps(raw | {"checksum": checksum_of(raw)}))

    def codes(self) -> list[str]:
        """What the last command warned of."""
        return [event.code for event in self.of(Warned) if event.code]

    async def doctor(self) -> dict[str, str]:
        found = await run_doctor(self.runtime(), DoctorRequest())
        return {one.code or "": str(one.level) for one in found if one.check == "heads"}

    async def listed(self) -> list[str]:
        await run_list(self.runtime(), ListRequest())
        return self.codes()

    async def find(self, date: str | None = None, *, trusted: bool = False):
        return await find_backup_to_read(
            self.runtime(), FindRequest("all", "fake", date, trusted=trusted)
        )

    async def accept(self, *words: str, dry_run: bool = False):
        return await run_accept(self.runtime(), AcceptRequest(words, dry_run))

    async def clean(self, keep: int = 9) -> None:
        """Keep the newest backups."""
        rules = dict.fromkeys(("hourly", "daily", "weekly", "monthly", "yearly"), 0)
        self.group |= {**rules, "keep_last": keep}
        await run_clean(self.runtime(), CleanRequest())
        assert len(self.paths()) <= keep

    async def forget_newest(self) -> None:
        name = self.paths()[-1].stem
        await run_forget(self.runtime(), ForgetRequest([name], allow_newest=True))

    def state(self) -> Path:
        return Path(os.environ["VIRTBACKUP_STATE_DIRECTORY"])

    def heads(self) -> list[Path]:
        return sorted((self.state() / "heads").glob("*/*.json"))

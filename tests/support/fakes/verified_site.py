"""A target with backups on disk, and what ``verify`` and ``repair`` say of them."""

from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from fakes.stored_backup import DATE, StoredBackup
from virtbackup_async.config.loading import load_config
from virtbackup_async.config.schema import Config
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.engine.verify.filters import VerifyRequest
from virtbackup_async.engine.verify.verify import run_verify
from virtbackup_async.events import Event, VerifyDone
from virtbackup_async.model.backup import Packager

DAY_S = 86400
NOW = datetime.fromtimestamp(DATE + 10 * DAY_S).astimezone()
DIRECTORY = Packager("directory")


class Site:
    """A target with backups, and the events of the last command."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.target = root / "t"
        self.target.mkdir(parents=True)
        self.events: list[Event] = []

    def configure(self, **groups: dict) -> Config:
        groups = groups or {"all": {"hosts": ["r:.*"]}}
        path = self.root / "config.yml"
        content = {"default": {"target": str(self.target)}, "groups": groups, "threads": 2}
        path.write_text(yaml.safe_dump(content))
        return load_config(path)

    async def store(
        self,
        packager: Packager = DIRECTORY,
        domain: str = "web",
        date: int = DATE,
        image: str = "image.raw",
    ) -> StoredBackup:
        stored = StoredBackup(self.target, packager, domain, date)
        return await stored.make(self.root / image)

    async def verify(
        self, now: datetime = NOW, config: Config | None = None, **request: Any
    ) -> list[str]:
        """Verify, and return the backups that are good."""
        self.events.clear()
        runtime = Runtime(config or self.configure(), self.events.append, now=lambda: now)
        await run_verify(runtime, VerifyRequest(**request))
        return sorted(event.backup for event in self.of(VerifyDone))

    def of(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]

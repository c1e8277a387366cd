"""A target, the domains of a fake libvirt, and the engine's commands on them."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from fakes.hypervisor import FakeDomain, FakeHypervisor
from fakes.stored_backup import DATE, StoredBackup
from virtbackup_async.config.loading import load_config
from virtbackup_async.config.schema import Config
from virtbackup_async.engine.backup.session import BackupRequest, run_backup
from virtbackup_async.engine.runtime import Runtime, local_now
from virtbackup_async.engine.verify.filters import VerifyRequest
from virtbackup_async.engine.verify.verify import run_verify
from virtbackup_async.events import BackupDone, BackupFailed, Event, VerifyDone, Warned
from virtbackup_async.model.backup import Packager

DAY_S = 86400
NOW = datetime.fromtimestamp(DATE + 10 * DAY_S).astimezone()
DIRECTORY = Packager("directory")


class Site:
    """One host: its domains, its target, its locks, and the events of the last command.

    A test that needs more of a host derives its own.

    Attributes:
        root: the directory that holds all of it.
        target: the directory of the backups; an own one if it is not there yet.
        domains: the domains that libvirt has.
        group: the settings of the group ``all``, which includes all domains.
        settings: of the configuration, beside its groups.
        on: what to do once, by the condition on an event that lets it happen.
    """

    def __init__(
        self, root: Path, *domains: FakeDomain, target: str | Path = "target", **group: object
    ):
        self.root = root
        self.target = root / target
        self.target.mkdir(parents=True, exist_ok=True)
        self.locks = root / "locks"
        self.domains = domains
        self.group: dict[str, object] = {"packager": "directory", "autostart": True, **group}
        self.settings: dict[str, object] = {"threads": 2}
        self.events: list[Event] = []
        self.on: dict[Callable[[Event], bool], Callable[[], None]] = {}

    @property
    def domain(self) -> FakeDomain:
        """The one domain."""
        (domain,) = self.domains
        return domain

    @property
    def hypervisor(self) -> FakeHypervisor:
        return FakeHypervisor(*self.domains)

    def configure(self, **groups: dict) -> Config:
        """Write the configuration, and return it; with the group ``all`` if none is given."""
        groups = groups or {"all": {"hosts": ["r:.*"], **self.group}}
        content = {"default": {"target": str(self.target)}, "groups": groups, **self.settings}
        path = self.root / "config.yml"
        path.write_text(yaml.safe_dump(content))
        return load_config(path)

    def emit(self, event: Event) -> None:
        self.events.append(event)
        for condition in [condition for condition in self.on if condition(event)]:
            self.on.pop(condition)()

    def runtime(
        self, config: Config | None = None, *, now: Callable[[], datetime] = local_now
    ) -> Runtime:
        """Return what a command needs; the events of the one before are forgotten."""
        self.events.clear()
        config = config or self.configure()
        return Runtime(config, self.emit, self.hypervisor, now=now, lock_directory=self.locks)

    async def back_up(self, **group: object) -> BackupDone | BackupFailed:
        """Back up the one domain; with other settings of the group."""
        self.group |= group
        await run_backup(self.runtime(), BackupRequest())
        (ended,) = self.of(BackupDone) + self.of(BackupFailed)
        return ended

    async def store(
        self,
        packager: Packager = DIRECTORY,
        domain: str = "web",
        date: int = DATE,
        image: str = "image.raw",
    ) -> StoredBackup:
        """Put a complete backup into the target."""
        stored = StoredBackup(self.target, packager, domain, date)
        return await stored.make(self.root / image)

    async def verify(
        self, now: datetime = NOW, config: Config | None = None, **request: Any
    ) -> list[str]:
        """Verify, and return the backups that are good."""
        await run_verify(self.runtime(config, now=lambda: now), VerifyRequest(**request))
        return sorted(event.backup for event in self.of(VerifyDone))

    def of(self, kind: type) -> list:
        """Return the events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def warnings(self) -> list[str]:
        return [event.message for event in self.of(Warned)]

    def left(self) -> list[str]:
        """Return the names of all files in the target."""
        return [path.name for path in self.target.rglob("*") if path.is_file()]

"""A hypervisor in memory: what the engine sees of libvirt, and the failures a real one rarely has.

tests/integration runs the same engine on real QEMU; this one is for the orders of events that
cannot be had there on demand.
"""

import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from lxml import etree

from virtbackup_async.engine.ports import BeforePivot
from virtbackup_async.errors import DomainGoneError, DomainNotFoundError, HypervisorError
from virtbackup_async.model.domain import DomainInfo, HostVersions, Sources
from virtbackup_async.model.pull import PullJob
from virtbackup_async.model.tracking import Tracking

Act = Callable[[], None]


class FakeGuard:
    """The guard of a domain's freeze; ``in_time`` of the domain is its verdict."""

    def __init__(self, domain: "FakeDomain") -> None:
        self._domain = domain

    async def ready(self) -> None:
        self._domain.guard_stands_by()

    async def freeze(self) -> None:
        self._domain.froze()

    async def release(self) -> bool:
        self._domain.calls.append("release")
        return self._domain.in_time


# Of this process alone: locks on domains are the host's, and tests run side by side. The last digit
# is always 0, so that tests make another UUID by another digit.
UUID = f"00000000-0000-4000-8000-{os.getpid():011x}0"


class FakeDomain:
    """One domain with images; ``before`` holds what shall happen at the next call of a method."""

    def __init__(self, images: Mapping[str, Path], *, active: bool = True) -> None:
        self.name = "fake"
        self.uuid = UUID
        self.live: dict[str, Path] | None = dict(images) if active else None
        self.persistent: dict[str, Path] | None = dict(images)
        self.own = dict(images)
        self.jobs: frozenset[str] = frozenset()
        self.job: PullJob | None = None
        self.saved: dict[str, Path] = {}
        self.halted = False
        self.checkpoints: list[str] = []
        self.changed: dict[str, int] = {}
        self.thaws: int | None = 0
        self.in_time = True
        self.calls: list[str] = []
        self.before: dict[str, list[Act]] = {}

    def shut_off(self) -> None:
        self.live = None

    async def start(self) -> None:
        self._called("start")
        self.live = dict(self.persistent or {})

    def undefine(self) -> None:
        self.persistent = None

    def _called(self, method: str) -> None:
        """Take note of a call, let happen what shall happen first, and look for the domain."""
        self.calls.append(method)
        acts = self.before.get(method, [])
        if acts:
            acts.pop(0)()
        if self.live is None and self.persistent is None:
            raise DomainNotFoundError("no such domain", domain=self.name)

    def _called_running(self, method: str) -> None:
        self._called(method)
        if self.live is None:
            raise DomainGoneError("the domain is not running any more", domain=self.name)

    async def info(self) -> DomainInfo:
        self._called("info")
        active, saved = self.live is not None, bool(self.saved)
        persistent = self.persistent is not None
        domain_id = 1 if active else -1
        return DomainInfo(
            self.name, self.uuid, domain_id, active, persistent, "<domain/>", is_saved=saved
        )

    async def sources(self) -> Sources:
        self._called("sources")
        return Sources(
            dict(self.live) if self.live is not None else None,
            dict(self.persistent) if self.persistent is not None else None,
            self.jobs,
            dict(self.saved),
        )

    async def prepare_quiesce(self) -> None:
        self._called("prepare_quiesce")

    async def snapshot(
        self, name: str, overlays: Mapping[str, Path], others: Iterable[str], *, quiesce: bool
    ) -> None:
        self._called("snapshot")
        for side in (self.live, self.persistent):
            if side is not None:
                side.update(overlays)

    @asynccontextmanager
    async def guarded(self) -> AsyncIterator["FakeGuard"]:
        self._called("guarded")
        yield FakeGuard(self)

    async def is_frozen(self) -> bool:
        self._called("is_frozen")
        return False

    def guard_stands_by(self) -> None:
        self._called("ready")

    def froze(self) -> None:
        self._called("freeze")

    async def thaw(self) -> int | None:
        self._called("thaw")
        return self.thaws

    async def prepare_backup(self) -> None:
        self._called("prepare_backup")
        if self.job is not None:
            raise HypervisorError("another backup job runs", domain=self.name)

    async def begin_backup(self, job: PullJob, tracking: Tracking, others: Iterable[str]) -> None:
        self._called_running("begin_backup")
        self.job = job
        if tracking.checkpoint is not None:
            self.checkpoints.append(tracking.checkpoint)
            self.changed = dict.fromkeys(tracking.in_checkpoint, 0)

    async def redefine_checkpoint(
        self, name: str, date: int, devs: Sequence[str]
    ) -> frozenset[str]:
        self._called("redefine_checkpoint")
        return frozenset(devs)

    async def changed_bytes(self, checkpoint: str) -> Mapping[str, int] | None:
        self._called_running("changed_bytes")
        return dict(self.changed) if checkpoint in self.checkpoints else None

    async def delete_checkpoint(self, name: str, devs: Iterable[str]) -> bool:
        self._called("delete_checkpoint")
        if name in self.checkpoints:
            self.checkpoints.remove(name)
        return True

    async def end_backup(self, socket: Path) -> None:
        self._called("end_backup")
        if self.job is not None and self.job.socket == socket:
            self.job = None

    async def is_paused_on_io_error(self) -> bool:
        self._called("is_paused_on_io_error")
        return self.halted

    async def resume(self) -> None:
        self._called("resume")
        self.halted = False

    async def snapshot_names(self) -> tuple[str, ...]:
        self._called("snapshot_names")
        return ()

    async def checkpoint_names(self) -> tuple[str, ...]:
        self._called("checkpoint_names")
        return tuple(self.checkpoints)

    async def commit(self, dev: str, before_pivot: BeforePivot, *, resume: bool = False) -> None:
        self._called_running("resume_commit" if resume else "commit")
        await before_pivot()
        self._called("pivot")
        for side in (self.live, self.persistent):
            if side is not None:
                side[dev] = self.own[dev]

    async def set_saved_source(self, dev: str, path: Path, image_format: str) -> None:
        self._called("set_saved_source")
        self.saved[dev] = path

    async def remove_saved(self) -> None:
        self._called("remove_saved")
        self.saved = {}

    async def set_persistent_source(self, dev: str, path: Path, image_format: str) -> None:
        self._called("set_persistent_source")
        if self.persistent is None:
            raise HypervisorError("the domain is transient", domain=self.name)
        self.persistent[dev] = path


class DescribedDomain(FakeDomain):
    """A domain whose XML names its raw images, and a network disk that is never backed up."""

    async def info(self) -> DomainInfo:
        self._called("info")
        disks = "".join(
            f"<disk type='file'><driver type='raw'/><source file='{path}'/><target dev='{dev}'/>"
            "</disk>"
            for dev, path in self.own.items()
        )
        disks += "<disk type='network'><target dev='vdz'/></disk>"
        xml = f"<domain><devices>{disks}</devices></domain>"
        domain_id = -1 if self.live is None else 1
        active, saved = self.live is not None, bool(self.saved)
        persistent = self.persistent is not None
        return DomainInfo(self.name, self.uuid, domain_id, active, persistent, xml, is_saved=saved)


class FakeHypervisor:
    """A connection that can be lost."""

    def __init__(self, *domains: FakeDomain) -> None:
        self.domains = {domain.name: domain for domain in domains}
        self.reconnects = 0

    async def versions(self) -> HostVersions:
        return HostVersions("QEMU", (9, 0, 0), (7, 2, 0))

    async def domain_names(self) -> tuple[str, ...]:
        return tuple(sorted(self.domains))

    async def domain(self, name: str) -> FakeDomain:
        if name not in self.domains:
            raise DomainNotFoundError("no such domain", domain=name)
        return self.domains[name]

    async def domain_by_uuid(self, uuid: str) -> FakeDomain:
        for domain in self.domains.values():
            if domain.uuid == uuid:
                return domain
        raise DomainNotFoundError("no such domain", domain=uuid)

    async def reconnect(self) -> None:
        self.reconnects += 1

    async def state_directories(self) -> frozenset[Path]:
        return frozenset()

    async def define(self, xml: str) -> FakeDomain:
        """Define a shut-off domain on the images that the XML names."""
        root = etree.fromstring(xml)
        domain = FakeDomain(
            {
                str(disk.xpath("string(target/@dev)")): Path(
                    str(disk.xpath("string(source/@file)"))
                )
                for disk in root.findall("devices/disk")
            },
            active=False,
        )
        domain.name = root.findtext("name") or domain.name
        domain.uuid = root.findtext("uuid") or domain.uuid
        self.domains[domain.name] = domain
        return domain

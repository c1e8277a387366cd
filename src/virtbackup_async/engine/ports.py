"""The interface that the engine needs of a hypervisor; tests implement it with fakes.

The real ones are ``hypervisor.Hypervisor`` and ``hypervisor.Domain``; their docstrings describe
each call and its errors.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from virtbackup_async.model.domain import DomainInfo, HostVersions, Sources
from virtbackup_async.model.pull import PullJob
from virtbackup_async.model.tracking import Tracking

BeforePivot = Callable[[], Awaitable[None]]


class ThawGuardPort(Protocol):
    """Freezes a guest, and makes sure that it is thawed whatever happens to this process."""

    async def ready(self) -> None: ...

    async def freeze(self) -> None: ...

    async def release(self) -> bool: ...


class ImageUser(Protocol):
    """A domain to undo a backup of; it can be gone."""

    name: str

    async def sources(self) -> Sources: ...

    async def snapshot_names(self) -> tuple[str, ...]: ...

    async def commit(
        self, dev: str, before_pivot: BeforePivot, *, resume: bool = False
    ) -> None: ...

    async def thaw(self) -> int | None: ...

    async def end_backup(self, socket: Path) -> None: ...

    async def delete_checkpoint(self, name: str, devs: Iterable[str]) -> bool: ...

    async def resume(self) -> None: ...

    async def set_persistent_source(self, dev: str, path: Path, image_format: str) -> None: ...

    async def set_saved_source(self, dev: str, path: Path, image_format: str) -> None: ...


class DomainPort(ImageUser, Protocol):
    """One domain of a hypervisor."""

    uuid: str

    async def info(self) -> DomainInfo: ...

    async def checkpoint_names(self) -> tuple[str, ...]: ...

    async def prepare_quiesce(self) -> None: ...

    async def snapshot(
        self, name: str, overlays: Mapping[str, Path], others: Iterable[str], *, quiesce: bool
    ) -> None: ...

    async def prepare_backup(self) -> None: ...

    async def begin_backup(
        self, job: PullJob, tracking: Tracking, others: Iterable[str]
    ) -> None: ...

    async def redefine_checkpoint(
        self, name: str, date: int, devs: Sequence[str]
    ) -> frozenset[str]: ...

    async def changed_bytes(self, checkpoint: str) -> Mapping[str, int] | None: ...

    async def is_frozen(self) -> bool: ...

    def guarded(self) -> AbstractAsyncContextManager[ThawGuardPort]: ...

    async def is_paused_on_io_error(self) -> bool: ...

    async def remove_saved(self) -> None: ...


class StartableDomain(DomainPort, Protocol):
    """A domain that ``restore`` can start."""

    async def start(self) -> None: ...


class HypervisorPort(Protocol):
    """A connection to a hypervisor."""

    async def versions(self) -> HostVersions: ...

    async def domain_names(self) -> tuple[str, ...]: ...

    async def domain(self, name: str) -> DomainPort: ...

    async def domain_by_uuid(self, uuid: str) -> DomainPort: ...

    async def reconnect(self) -> None: ...

    async def state_directories(self) -> frozenset[Path]: ...

    async def define(self, xml: str) -> StartableDomain: ...

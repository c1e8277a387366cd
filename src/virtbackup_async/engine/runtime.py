"""What all commands share: built once, and handed down to every task.

``open_runtime`` is the only place that puts the real parts together; a test builds a ``Runtime``
with the parts it wants. Nothing is made before it is needed: ``list`` has no need of libvirt,
whose import takes as long as a thousand backups, nor of memory for disk data.
"""

import os
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from copy import copy
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from anyio import CapacityLimiter, Lock
from msgspec.structs import replace

from virtbackup_async.config.schema import Config
from virtbackup_async.engine.ports import DomainPort, HypervisorPort, StartableDomain
from virtbackup_async.errors import HypervisorError
from virtbackup_async.events import BackupStarted, Emit, Event
from virtbackup_async.model.domain import HostVersions

if TYPE_CHECKING:
    from virtbackup_async.engine.host_state import Host
    from virtbackup_async.images.buffers import BufferPool
    from virtbackup_async.images.stream import RateLimit
    from virtbackup_async.packagers.codecs.cpu_shares import CpuShares

E = TypeVar("E", bound=Event)

MIB: Final = 1024 * 1024


def local_now() -> datetime:
    """Return the wall clock's time, aware, in local time."""
    return datetime.now().astimezone()


class _Resources:
    """The parts of a runtime that are made when they are first needed."""

    def __init__(self, config: Config, lock_directory: Path | None) -> None:
        self._config = config
        self._lock_directory = lock_directory

    @cached_property
    def host(self) -> "Host":
        from virtbackup_async.engine.host_state import this_host  # noqa: PLC0415 -- see above

        return this_host(self._config, self._lock_directory)

    @cached_property
    def buffers(self) -> "BufferPool":
        from virtbackup_async.images.buffers import BufferPool  # noqa: PLC0415 -- see above

        return BufferPool(self._config.buffers_mib * MIB)

    @cached_property
    def cpu(self) -> "CpuShares":
        from virtbackup_async.packagers.codecs.cpu_shares import (  # noqa: PLC0415 -- see above
            CpuShares,
        )

        return CpuShares()

    @cached_property
    def disk_slots(self) -> CapacityLimiter:
        return CapacityLimiter(os.cpu_count() or 1)

    @cached_property
    def run_limit(self) -> "RateLimit | None":
        return _limit(self._config.rate_limit)

    @cached_property
    def group_limits(self) -> Mapping[str, "RateLimit | None"]:
        return {name: _limit(group.rate_limit) for name, group in self._config.groups.items()}


def _limit(bytes_per_s: int | None) -> "RateLimit | None":
    from virtbackup_async.images.stream import RateLimit  # noqa: PLC0415 -- see above

    return RateLimit(bytes_per_s) if bytes_per_s else None


class Runtime:
    """The ports and the limits that the work of a process keeps to.

    Attributes:
        config: the configuration.
        emit: where events go.
        now: the wall clock, aware, in local time.
    """

    def __init__(
        self,
        config: Config,
        emit: Emit,
        hypervisor: HypervisorPort | None = None,
        *,
        now: Callable[[], datetime] = local_now,
        lock_directory: Path | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            config: the configuration.
            emit: where events go.
            hypervisor: the connection to libvirt; None for work that needs none.
            now: the clock.
            lock_directory: of the locks on domains; None for where all processes look.
        """
        self.config = config
        self.emit = emit
        self.now = now
        self._hypervisor = hypervisor
        self._resources = _Resources(config, lock_directory)

    @property
    def hypervisor(self) -> HypervisorPort:
        """The connection to libvirt."""
        if self._hypervisor is None:
            raise RuntimeError("this runtime was built without a hypervisor")
        return self._hypervisor

    @property
    def host(self) -> "Host":
        """What this host knows by itself.

        Raises:
            ConfigError: the environment names no absolute path for the state directory.
        """
        return self._resources.host

    @property
    def buffers(self) -> "BufferPool":
        """The memory that disk data passes through."""
        return self._resources.buffers

    @property
    def cpu(self) -> "CpuShares":
        """The processors, which all disks share for their compression."""
        return self._resources.cpu

    @property
    def disk_slots(self) -> CapacityLimiter:
        """How many disks are restored at once."""
        return self._resources.disk_slots

    def limits_of(self, group: str) -> "tuple[RateLimit, ...]":
        """Return the rate limits that the copies of a group keep to: the run's, and its own."""
        limits = (self._resources.run_limit, self._resources.group_limits.get(group))
        return tuple(limit for limit in limits if limit is not None)

    async def refresh(self) -> None:
        """Get ready for another command: try a connection again that failed in the last one."""
        if isinstance(self._hypervisor, LazyHypervisor):
            await self._hypervisor.try_again()

    def recording(self, *kinds: type[Event]) -> "tuple[Runtime, Recording]":
        """Return this runtime with an ``emit`` that also records events of some kinds."""
        recording = Recording(self.emit, kinds)
        twin = copy(self)
        twin.emit = recording.emit
        return twin, recording

    def labelled(self, group: str) -> "Runtime":
        """Return this runtime with an ``emit`` that labels the events of one domain's backup."""
        twin = copy(self)
        twin.emit = Labels(self.emit, group).emit
        return twin


class Labels:
    """Tells of each event of one domain's backup which group, backup and domain it belongs to.

    The backup's name and the domain's UUID are known from ``BackupStarted`` on.
    """

    def __init__(self, emit: Emit, group: str) -> None:
        self._emit = emit
        self._labels = {"group": group}

    def emit(self, event: Event) -> None:
        """Add what the event does not say itself, and pass it on."""
        if isinstance(event, BackupStarted):
            self._labels["backup"] = event.backup
            if event.uuid is not None:
                self._labels["uuid"] = event.uuid
        unsaid = {
            name: value
            for name, value in self._labels.items()
            if getattr(event, name, "not a field") is None
        }
        self._emit(replace(event, **unsaid) if unsaid else event)


class Recording:
    """The events of some kinds that were emitted: what a command's result is made of."""

    def __init__(self, emit: Emit, kinds: tuple[type[Event], ...]) -> None:
        self._emit = emit
        self._kinds = kinds
        self._events: list[Event] = []

    def emit(self, event: Event) -> None:
        """Record an event, and pass it on."""
        if isinstance(event, self._kinds):
            self._events.append(event)
        self._emit(event)

    def of(self, kind: type[E]) -> tuple[E, ...]:
        """Return the recorded events of a kind, in their order."""
        return tuple(event for event in self._events if isinstance(event, kind))


Connect = Callable[[], AbstractAsyncContextManager[HypervisorPort]]


class LazyHypervisor:
    """A ``HypervisorPort``; its first call opens the connection, unless that failed once.

    Most commands never need libvirt, and ``clean`` needs it only to revert domains.
    """

    def __init__(self, connect: Connect, stack: AsyncExitStack) -> None:
        self._connect = connect
        self._stack = stack
        self._opening = Lock()
        self._hypervisor: HypervisorPort | None = None
        self._failure: HypervisorError | None = None

    async def versions(self) -> HostVersions:
        return await (await self._open()).versions()

    async def domain_names(self) -> tuple[str, ...]:
        return await (await self._open()).domain_names()

    async def domain(self, name: str) -> DomainPort:
        return await (await self._open()).domain(name)

    async def domain_by_uuid(self, uuid: str) -> DomainPort:
        return await (await self._open()).domain_by_uuid(uuid)

    async def reconnect(self) -> None:
        await (await self._open()).reconnect()

    async def state_directories(self) -> frozenset[Path]:
        return await (await self._open()).state_directories()

    async def define(self, xml: str) -> StartableDomain:
        return await (await self._open()).define(xml)

    async def try_again(self) -> None:
        """Forget that the connection could not be opened; open it again if it broke.

        Raises nothing of libvirt's: who needs the connection then gets the error.
        """
        self._failure = None
        if self._hypervisor is not None:
            try:
                await self._hypervisor.reconnect()
            except HypervisorError as error:
                self._failure = error

    async def _open(self) -> HypervisorPort:
        async with self._opening:
            if self._failure is not None:
                raise self._failure
            if self._hypervisor is None:
                try:
                    self._hypervisor = await self._stack.enter_async_context(self._connect())
                except HypervisorError as error:
                    self._failure = error
                    raise
            return self._hypervisor


@asynccontextmanager
async def open_lazy_hypervisor(connect: Connect) -> AsyncGenerator[LazyHypervisor]:
    """Open the connection when it is first used; close it at the end of the block."""
    async with AsyncExitStack() as stack:
        yield LazyHypervisor(connect, stack)


@asynccontextmanager
async def open_runtime(config: Config, emit: Emit) -> AsyncGenerator[Runtime]:
    """Build the runtime of a process; its connection, if one was opened, is closed at the end."""

    def connect() -> AbstractAsyncContextManager[HypervisorPort]:
        from virtbackup_async.hypervisor.hypervisor import (  # noqa: PLC0415 -- see above
            open_hypervisor,
        )

        return open_hypervisor(config.uri, username=config.username, passphrase=config.passphrase)

    async with open_lazy_hypervisor(connect) as hypervisor:
        yield Runtime(config, emit, hypervisor)

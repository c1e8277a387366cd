"""A connection to libvirt that is opened by its first use.

Most commands never need it, and ``clean`` needs it only to put domains back: a target without
unfinished backups is cleaned without libvirt, and so are unfinished backups that made no overlay.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio

from virtbackup_async.engine.ports import DomainPort, HypervisorPort, StartableDomain
from virtbackup_async.errors import HypervisorError
from virtbackup_async.model.host import HostVersions

Connect = Callable[[], AbstractAsyncContextManager[HypervisorPort]]


class LazyHypervisor:
    """A ``HypervisorPort``; each call opens the connection, unless that failed once."""

    def __init__(self, connect: Connect, stack: AsyncExitStack) -> None:
        self._connect = connect
        self._stack = stack
        self._opening = anyio.Lock()
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

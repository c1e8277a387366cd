"""One connection to libvirt, and the only place where libvirt's calls are made from asyncio.

A libvirt call can block for seconds, so each runs in a worker thread. The threads are limited by
the connection's own limiter, because anyio's default threads belong to file work. A call that
creates something is never abandoned: its result would leak. A call that only asks has a deadline,
as does the opening, so a libvirt that accepts connections and never answers is an error, and a
cancellation ends the wait. Events arrive on the loop (see ``event_loop``), for ``block_jobs``.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import anyio
import libvirt
from anyio.to_thread import run_sync

from virtbackup_async import errors
from virtbackup_async.hypervisor.block_jobs import BlockJobEvents
from virtbackup_async.hypervisor.errors import Attempt, one_line, translate
from virtbackup_async.hypervisor.guard import Credentials

T = TypeVar("T")

PARALLEL_CALLS = 16
OPEN_TIMEOUT_S = 30
ANSWER_TIMEOUT_S = 120
"""For calls that only ask: some wait for a domain's lock, which another call can hold for 30 s."""

KEEPALIVE_INTERVAL_S = 5
KEEPALIVE_COUNT = 3


class Connection:
    """A connection that can be lost and opened again; ``open_hypervisor`` opens the first time."""

    def __init__(
        self,
        uri: str | None,
        connect: Callable[[], libvirt.virConnect],
        credentials: Credentials = (None, None),
    ) -> None:
        self.uri = uri
        self.credentials = credentials
        self.block_jobs = BlockJobEvents()
        self._connect = connect
        self._limiter = anyio.CapacityLimiter(PARALLEL_CALLS)
        self._reopening = anyio.Lock()
        self._connection: libvirt.virConnect | None = None
        self._callback_ids: list[int] = []

    @property
    def handle(self) -> libvirt.virConnect:
        """Libvirt's own object.

        Raises:
            ConnectionLostError: the connection is not open.
        """
        if self._connection is None:
            raise errors.ConnectionLostError(
                f"no connection to libvirt at {self.uri or 'its default'}"
            )
        return self._connection

    async def call(self, what: Attempt, function: Callable[..., T], *args: object) -> T:
        """Run one libvirt call in a worker thread.

        Args:
            what: the attempt, for the error's message: ``vm1: snapshot``.
            function: a bound method of a libvirt object.
            args: its arguments.

        Raises:
            HypervisorError: or a subclass, translated from libvirt's error.
        """
        return await self._run(what, function, *args)

    async def ask(self, what: Attempt, function: Callable[..., T], *args: object) -> T:
        """Run a call that creates nothing; it can be cancelled, and times out.

        Raises:
            HypervisorError: no answer within ``ANSWER_TIMEOUT_S``; or as for :meth:`call`.
        """
        try:
            with anyio.fail_after(ANSWER_TIMEOUT_S):
                return await self._run(what, function, *args, abandon=True)
        except TimeoutError as error:
            raise errors.HypervisorError(
                f"{what.doing}: libvirt does not answer within {ANSWER_TIMEOUT_S} s",
                domain=what.domain,
                hint="Look at its daemon's log: it may wait for a domain that hangs.",
            ) from error

    async def call_running(
        self, what: Attempt, domain: libvirt.virDomain, function: Callable[..., T], *args: object
    ) -> T:
        """Run a call that needs a running domain.

        libvirt has many errors for a domain that stopped, so after a failure the domain is checked.

        Raises:
            DomainGoneError: the call failed, and the domain does not run.
            HypervisorError: as for :meth:`call`.
        """
        try:
            return await self.call(what, function, *args)
        except (errors.ConnectionLostError, errors.DomainNotFoundError):
            raise
        except errors.HypervisorError as error:
            with suppress(errors.DomainNotFoundError):
                if await self.ask(what, domain.isActive):
                    raise
            raise error.as_kind(errors.DomainGoneError) from error.__cause__

    async def _run(
        self, what: Attempt, function: Callable[..., T], *args: object, abandon: bool = False
    ) -> T:
        try:
            return await run_sync(function, *args, limiter=self._limiter, abandon_on_cancel=abandon)
        except libvirt.libvirtError as error:
            raise translate(error, what) from error
        except (SystemError, UnicodeError) as error:
            # The binding breaks on an error whose text is not UTF-8; a guest's agent can send one.
            raise errors.CallRefusedError(
                f"{what.doing}: libvirt's error cannot be read", domain=what.domain
            ) from error

    async def find_name(self, name: str) -> libvirt.virDomain:
        """Return libvirt's own object for the domain of a name; errors as for :meth:`find`."""
        return await self._find(name, "lookupByName")

    async def find(self, uuid: str) -> libvirt.virDomain:
        """Return libvirt's own object for a domain. It is valid as long as the connection is open.

        All work on a domain starts here, so here a broken connection is opened again: the daemon
        can restart at any time, for example in an update.

        Raises:
            DomainNotFoundError: libvirt does not know the domain.
            ConnectionLostError: the connection is broken and cannot be opened again.
        """
        return await self._find(uuid, "lookupByUUIDString")

    async def _find(self, key: str, method: str) -> libvirt.virDomain:
        what = Attempt(key, "look up")
        try:
            return await self.ask(what, getattr(self.handle, method), key)
        except errors.ConnectionLostError as lost:
            try:
                await self.reconnect()
            except errors.ConnectionFailedError:
                raise lost from None
        return await self.ask(what, getattr(self.handle, method), key)

    async def reconnect(self) -> None:
        """Open a broken connection again; does nothing while it is alive.

        Raises:
            ConnectionFailedError: libvirt does not answer.
        """
        async with self._reopening:
            if await self.is_alive():
                return
            with suppress(libvirt.libvirtError):
                await self.close()
            await self.open()

    async def is_alive(self) -> bool:
        """Return whether the connection can be used."""
        connection = self._connection
        if connection is None:
            return False
        try:
            return bool(await self.ask(Attempt(None, "look at the connection"), connection.isAlive))
        except errors.HypervisorError:
            return False

    async def open(self) -> None:
        """Open the connection.

        Raises:
            ConnectionFailedError: libvirt does not answer, or refuses the credentials.
        """
        try:
            with anyio.fail_after(OPEN_TIMEOUT_S):
                connecting = run_sync(self._open, limiter=self._limiter, abandon_on_cancel=True)
                self._connection = await connecting
        except TimeoutError as error:
            raise errors.ConnectionFailedError(
                f"libvirt at {self.uri or 'its default URI'} does not answer within "
                f"{OPEN_TIMEOUT_S} s",
                hint="Look at its daemon: it accepts connections, and hangs.",
            ) from error
        except libvirt.libvirtError as error:
            raise errors.ConnectionFailedError(
                f"libvirt at {self.uri or 'its default URI'}: {one_line(error)}",
                hint="Check `uri` in the configuration, and that libvirt runs.",
            ) from error

    def _open(self) -> libvirt.virConnect:
        connection = self._connect()
        # The embedded driver has no connection to keep alive.
        with suppress(libvirt.libvirtError):
            connection.setKeepAlive(KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT)
        events = self.block_jobs
        self._callback_ids = [
            connection.domainEventRegisterAny(None, event, callback, None)
            for event, callback in (
                (libvirt.VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2, events.on_block_job),
                (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, events.on_lifecycle),
            )
        ]
        return connection

    async def close(self) -> None:
        """Close the connection, if it is open.

        Raises:
            libvirtError: libvirt could not close it.
        """
        connection, self._connection = self._connection, None
        if connection is not None:
            # Whatever a hanging daemon leaves of it ends with the process.
            await run_sync(self._close, connection, limiter=self._limiter, abandon_on_cancel=True)

    def _close(self, connection: libvirt.virConnect) -> None:
        with suppress(libvirt.libvirtError):
            for callback_id in self._callback_ids:
                connection.domainEventDeregisterAny(callback_id)
        connection.close()

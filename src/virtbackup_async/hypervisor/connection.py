"""One connection to libvirt, used from asyncio.

Every libvirt call may block for seconds, so each runs in a worker thread, under a limiter of the
connection's own: anyio's default threads belong to file work. No call that makes something is ever
abandoned: that would leak. What only asks, and the opening itself, have a deadline: a libvirt that
accepts and never answers is told, and the first signal ends the wait. Events arrive on the loop
(see ``event_loop``) and are handed to ``block_jobs``.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

import anyio
import libvirt
from anyio.to_thread import run_sync

from virtbackup_async.errors import (
    ConnectionFailedError,
    ConnectionLostError,
    DomainGoneError,
    DomainNotFoundError,
    HypervisorError,
)
from virtbackup_async.hypervisor.block_jobs import BlockJobEvents
from virtbackup_async.hypervisor.directories import libvirt_directories
from virtbackup_async.hypervisor.domain import Domain
from virtbackup_async.hypervisor.errors import one_line, translate
from virtbackup_async.hypervisor.event_loop import register_event_impl
from virtbackup_async.hypervisor.guard import Credentials
from virtbackup_async.model.host import HostVersions, Version

T = TypeVar("T")

PARALLEL_CALLS = 16
OPEN_TIMEOUT_S = 30
ANSWER_TIMEOUT_S = 120
"""Of calls that only ask. Some wait for the domain's lock, which another call may hold for 30 s."""

KEEPALIVE_INTERVAL_S = 5
KEEPALIVE_COUNT = 3
CLOSE_TIMEOUT_S = 10


class Hypervisor:
    """An open connection. Made by ``open_hypervisor``."""

    def __init__(
        self,
        uri: str | None,
        open_connection: Callable[[], libvirt.virConnect],
        credentials: Credentials = (None, None),
    ) -> None:
        self.uri = uri
        self.credentials = credentials
        self.block_jobs = BlockJobEvents()
        self._open_connection = open_connection
        self._limiter = anyio.CapacityLimiter(PARALLEL_CALLS)
        self._reopening = anyio.Lock()
        self._connection: libvirt.virConnect | None = None
        self._callback_ids: list[int] = []

    async def call(self, what: str, function: Callable[..., T], *args: object) -> T:
        """Run one libvirt call in a worker thread.

        Args:
            what: what is tried, for the error's message: ``vm1: snapshot``.
            function: a bound method of a libvirt object.
            args: its arguments.

        Raises:
            HypervisorError: or one of its kinds, from libvirt's error.
        """
        return await self._run(what, function, *args)

    async def ask(self, what: str, function: Callable[..., T], *args: object) -> T:
        """Run a call that only asks: it gets ``ANSWER_TIMEOUT_S``, and a cancellation ends it.

        What it would have told is of no use then, and it has made nothing that could leak.

        Raises:
            HypervisorError: libvirt does not answer; or as :meth:`call`.
        """
        try:
            with anyio.fail_after(ANSWER_TIMEOUT_S):
                return await self._run(what, function, *args, abandon=True)
        except TimeoutError as error:
            raise HypervisorError(
                f"{what}: libvirt does not answer within {ANSWER_TIMEOUT_S} s",
                hint="Look at its daemon's log: it may wait for a domain that hangs.",
            ) from error

    async def call_running(
        self, what: str, domain: libvirt.virDomain, function: Callable[..., T], *args: object
    ) -> T:
        """Run a call that needs a running domain.

        libvirt says in many ways that a domain does not run (any more): it is asked for that.

        Raises:
            DomainGoneError: the call failed, and the domain does not run.
            HypervisorError: as :meth:`call`.
        """
        try:
            return await self.call(what, function, *args)
        except (ConnectionLostError, DomainNotFoundError):
            raise
        except HypervisorError as error:
            with suppress(DomainNotFoundError):
                if await self.ask(what, domain.isActive):
                    raise
            raise DomainGoneError(error.message) from error.__cause__

    async def _run(
        self, what: str, function: Callable[..., T], *args: object, abandon: bool = False
    ) -> T:
        try:
            return await run_sync(function, *args, limiter=self._limiter, abandon_on_cancel=abandon)
        except libvirt.libvirtError as error:
            raise translate(error, what) from error
        except (SystemError, UnicodeError) as error:
            # The binding breaks on an error whose text is not UTF-8, as a guest's agent may say it.
            raise HypervisorError(f"{what}: libvirt's error cannot be read") from error

    async def versions(self) -> HostVersions:
        """Return the versions of libvirt and of the hypervisor that serve the domains."""
        return await self.ask("read versions", _read_versions, self._live())

    async def domain_names(self) -> tuple[str, ...]:
        """Return the names of all domains, running or not, sorted."""
        domains = await self.ask("list domains", self._live().listAllDomains, 0)
        return tuple(sorted(domain.name() for domain in domains))

    async def domain(self, name: str) -> Domain:
        """Look a domain up by its name.

        Raises:
            DomainNotFoundError: there is none of that name.
        """
        found = await self._find(name, "lookupByName")
        return Domain(self, found.name(), found.UUIDString())

    async def domain_by_uuid(self, uuid: str) -> Domain:
        """Look a domain up by its UUID, whatever it is called now.

        Raises:
            DomainNotFoundError: there is none with it.
        """
        found = await self.lookup(uuid)
        return Domain(self, found.name(), found.UUIDString())

    async def define(self, xml: str) -> Domain:
        """Define a domain, shut off. One of the same name and UUID would be replaced.

        Raises:
            HypervisorError: libvirt refuses the XML, or its name or UUID is another domain's.
        """
        defined = await self.call("define the domain", self._live().defineXMLFlags, xml, 0)
        return Domain(self, defined.name(), defined.UUIDString())

    async def state_directories(self) -> frozenset[Path]:
        """Return where this libvirt keeps UEFI variables and pstore; empty if that is not known.

        Raises:
            HypervisorError: libvirt does not say which of its drivers this is.
        """
        uri = await self.ask("read the connection's URI", self._live().getURI)
        directories = libvirt_directories(uri)
        return directories.state if directories else frozenset()

    async def lookup(self, uuid: str) -> libvirt.virDomain:
        """Return libvirt's own object for a domain; it is good while the connection lasts.

        Whoever works on a domain starts here, so a daemon that was restarted meanwhile (by an
        update, say) is found again here.

        Raises:
            DomainNotFoundError: it was undefined.
            ConnectionLostError: the connection is gone and could not be opened again.
        """
        return await self._find(uuid, "lookupByUUIDString")

    async def _find(self, key: str, method: str) -> libvirt.virDomain:
        what = f"{key}: look up"
        try:
            return await self.ask(what, getattr(self._live(), method), key)
        except ConnectionLostError as lost:
            try:
                await self.reconnect()
            except ConnectionFailedError:
                raise lost from None
        return await self.ask(what, getattr(self._live(), method), key)

    async def reconnect(self) -> None:
        """Open the connection again if it broke; does nothing while it is alive.

        Raises:
            ConnectionFailedError: libvirt does not answer.
        """
        async with self._reopening:
            if await self.is_alive():
                return
            with suppress(libvirt.libvirtError):
                await self._close()
            await self._open()

    async def is_alive(self) -> bool:
        """Return whether the connection can be used."""
        connection = self._connection
        if connection is None:
            return False
        try:
            return bool(await self.ask("look at the connection", connection.isAlive))
        except HypervisorError:
            return False

    def _live(self) -> libvirt.virConnect:
        if self._connection is None:
            raise ConnectionLostError(f"no connection to libvirt at {self.uri or 'its default'}")
        return self._connection

    async def _open(self) -> None:
        try:
            with anyio.fail_after(OPEN_TIMEOUT_S):
                connecting = run_sync(self._connect, limiter=self._limiter, abandon_on_cancel=True)
                self._connection = await connecting
        except TimeoutError as error:
            raise ConnectionFailedError(
                f"libvirt at {self.uri or 'its default URI'} does not answer within "
                f"{OPEN_TIMEOUT_S} s",
                hint="Look at its daemon: it accepts connections, and hangs.",
            ) from error
        except libvirt.libvirtError as error:
            raise ConnectionFailedError(
                f"libvirt at {self.uri or 'its default URI'}: {one_line(error)}",
                hint="Check `uri` in the configuration, and that libvirt runs.",
            ) from error

    def _connect(self) -> libvirt.virConnect:
        connection = self._open_connection()
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

    async def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # What is left of it ends with the process.
            await run_sync(
                self._disconnect, connection, limiter=self._limiter, abandon_on_cancel=True
            )

    def _disconnect(self, connection: libvirt.virConnect) -> None:
        with suppress(libvirt.libvirtError):
            for callback_id in self._callback_ids:
                connection.domainEventDeregisterAny(callback_id)
        connection.close()


@asynccontextmanager
async def open_hypervisor(
    uri: str | None, *, username: str | None = None, passphrase: str | None = None
) -> AsyncGenerator[Hypervisor]:
    """Connect to libvirt; libvirt's events are served by the running asyncio loop.

    Args:
        uri: a libvirt URI; None takes libvirt's default.
        username: answers libvirt's request for a user name, where it makes one.
        passphrase: answers its request for a passphrase.

    Raises:
        ConnectionFailedError: libvirt does not answer or refuses the credentials.
    """
    register_event_impl()
    silence_libvirt()
    credentials = (username, passphrase)
    hypervisor = Hypervisor(uri, _opener(uri, username, passphrase), credentials)
    await hypervisor._open()  # noqa: SLF001 -- this function is the class's constructor
    try:
        yield hypervisor
    finally:
        with anyio.move_on_after(CLOSE_TIMEOUT_S, shield=True), suppress(libvirt.libvirtError):
            await hypervisor._close()  # noqa: SLF001 -- and its destructor


def _read_versions(connection: libvirt.virConnect) -> HostVersions:
    return HostVersions(
        driver=connection.getType(),
        libvirt=_version(connection.getLibVersion()),
        hypervisor=_version(connection.getVersion()),
    )


def _version(number: int) -> Version:
    """Take libvirt's number apart: a million times the major version, and so on."""
    return number // 1_000_000, number // 1000 % 1000, number % 1000


def silence_libvirt() -> None:
    """Keep libvirt from printing each error on stderr: they are raised as well."""
    libvirt.registerErrorHandler(lambda _context, _error: None, None)


def _opener(
    uri: str | None, username: str | None, passphrase: str | None
) -> Callable[[], libvirt.virConnect]:
    answers = {libvirt.VIR_CRED_AUTHNAME: username, libvirt.VIR_CRED_PASSPHRASE: passphrase}

    def answer(credentials: list[list[object]], _data: object) -> int:
        # libvirt-python: [type, prompt, challenge, default, result], the last to be filled in.
        for credential in credentials:
            given = answers.get(credential[0])
            if given is None:
                return -1
            credential[4] = given
        return 0

    if username is None and passphrase is None:
        return lambda: libvirt.open(uri)
    return lambda: libvirt.openAuth(uri, [list(answers), answer, None], 0)

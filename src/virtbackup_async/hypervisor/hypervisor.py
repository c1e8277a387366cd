"""The domains that one libvirt manages, and the way to them: ``open_hypervisor``."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import libvirt

from virtbackup_async.hypervisor.connection import Connection
from virtbackup_async.hypervisor.domain import Domain
from virtbackup_async.hypervisor.errors import Attempt
from virtbackup_async.hypervisor.event_loop import register_event_impl
from virtbackup_async.hypervisor.read_domain import libvirt_directories
from virtbackup_async.model.domain import HostVersions, Version

CLOSE_TIMEOUT_S = 10


class Hypervisor:
    """The domains of an open connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def versions(self) -> HostVersions:
        """Return the versions of libvirt and of the hypervisor."""
        return await self._connection.ask(
            Attempt(None, "read versions"), _read_versions, self._connection.handle
        )

    async def domain_names(self) -> tuple[str, ...]:
        """Return the names of all domains, running or not, sorted."""
        listing = self._connection.handle.listAllDomains
        domains = await self._connection.ask(Attempt(None, "list domains"), listing, 0)
        return tuple(sorted(domain.name() for domain in domains))

    async def domain(self, name: str) -> Domain:
        """Return the domain of a name.

        Raises:
            DomainNotFoundError: libvirt knows no domain of that name.
        """
        return self._domain(await self._connection.find_name(name))

    async def domain_by_uuid(self, uuid: str) -> Domain:
        """Return the domain of a UUID, whatever its name is now.

        Raises:
            DomainNotFoundError: libvirt knows no domain with that UUID.
        """
        return self._domain(await self._connection.find(uuid))

    async def define(self, xml: str) -> Domain:
        """Define a domain, shut off; libvirt replaces one of the same name and UUID.

        Raises:
            HypervisorError: libvirt refuses the XML, or another domain has its name or UUID.
        """
        defining = self._connection.handle.defineXMLFlags
        return self._domain(
            await self._connection.call(Attempt(None, "define the domain"), defining, xml, 0)
        )

    def _domain(self, handle: libvirt.virDomain) -> Domain:
        return Domain(self._connection, handle.name(), handle.UUIDString())

    async def state_directories(self) -> frozenset[Path]:
        """Return where this libvirt keeps UEFI variables and pstore; empty if that is unknown.

        Raises:
            HypervisorError: libvirt does not report the connection's URI.
        """
        asking = self._connection.handle.getURI
        uri = await self._connection.ask(Attempt(None, "read the connection's URI"), asking)
        directories = libvirt_directories(uri)
        return directories.state if directories else frozenset()

    async def reconnect(self) -> None:
        """Open a broken connection again; see ``Connection.reconnect``."""
        await self._connection.reconnect()

    async def is_alive(self) -> bool:
        """Return whether the connection can be used."""
        return await self._connection.is_alive()


@asynccontextmanager
async def open_hypervisor(
    uri: str | None, *, username: str | None = None, passphrase: str | None = None
) -> AsyncGenerator[Hypervisor]:
    """Connect to libvirt; the running asyncio loop serves libvirt's events.

    This concerns the whole process: libvirt keeps this loop for ever, Python collects garbage only
    from it (see ``event_loop``), and libvirt stops printing its errors on stderr.

    Args:
        uri: a libvirt URI; None for libvirt's default.
        username: the answer to libvirt's request for a user name, if it makes one.
        passphrase: the answer to its request for a passphrase.

    Raises:
        ConnectionFailedError: libvirt does not answer, or refuses the credentials.
    """
    register_event_impl()
    _silence_libvirt()
    connection = Connection(uri, _connector(uri, username, passphrase), (username, passphrase))
    await connection.open()
    try:
        yield Hypervisor(connection)
    finally:
        with anyio.move_on_after(CLOSE_TIMEOUT_S, shield=True), suppress(libvirt.libvirtError):
            await connection.close()


def _silence_libvirt() -> None:
    """Keep libvirt from printing its errors on stderr: the binding also raises them."""
    libvirt.registerErrorHandler(lambda _context, _error: None, None)


def _connector(
    uri: str | None, username: str | None, passphrase: str | None
) -> Callable[[], libvirt.virConnect]:
    answers = {libvirt.VIR_CRED_AUTHNAME: username, libvirt.VIR_CRED_PASSPHRASE: passphrase}

    def answer(credentials: list[list[object]], _data: object) -> int:
        # libvirt-python: [type, prompt, challenge, default, result]; the callback sets the result.
        for credential in credentials:
            given = answers.get(credential[0])
            if given is None:
                return -1
            credential[4] = given
        return 0

    if username is None and passphrase is None:
        return lambda: libvirt.open(uri)
    return lambda: libvirt.openAuth(uri, [list(answers), answer, None], 0)


def _read_versions(connection: libvirt.virConnect) -> HostVersions:
    return HostVersions(
        driver=connection.getType(),
        libvirt=_version(connection.getLibVersion()),
        hypervisor=_version(connection.getVersion()),
    )


def _version(number: int) -> Version:
    """Split libvirt's number: 1,000,000 * major + 1,000 * minor + release."""
    return number // 1_000_000, number // 1000 % 1000, number % 1000

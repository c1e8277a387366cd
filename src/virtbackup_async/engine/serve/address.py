"""Where a backup is served: at a socket, which is made or named by the admin, or over TCP."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import socket
from typing import Final
from urllib.parse import quote

from msgspec import Struct

from virtbackup_async.config.trust import distrust
from virtbackup_async.errors import ConfigError
from virtbackup_async.files.refusals import storage_error
from virtbackup_async.files.socket_directory import SOCKET, socket_directory
from virtbackup_async.nbd.protocol.export import TcpAddress
from virtbackup_async.nbd.server.listening import listen_tcp, listen_unix, server_tls

_PREFIX: Final = "virtbackup-serve-"


class Place(Struct, frozen=True):
    """Where to serve.

    Attributes:
        socket: a Unix socket to make; None for one in a private directory.
        tcp: an address and a port in place of a socket; 0 for any free port.
        tls: a directory with certificates, as QEMU has them; TCP needs it.
    """

    socket: Path | None = None
    tcp: TcpAddress | None = None
    tls: Path | None = None


class Listening(Struct, frozen=True):
    """A socket that listens.

    Attributes:
        listener: the socket.
        tls: what encrypts its connections; None on a Unix socket.
        base: the URI of an export is this, with the export's name in place of ``{}``.
    """

    listener: socket
    tls: ssl.SSLContext | None
    base: str

    def uri(self, name: str) -> str:
        """Return the URI of an export, as libnbd and QEMU read it."""
        return self.base.replace("{}", quote(name, safe=""))


@contextmanager
def open_place(place: Place) -> Iterator[Listening]:
    """Listen; remove at the end what this made. Blocks.

    Raises:
        ConfigError: the place is not safe, TCP was wanted without certificates, or these are bad.
        LockHeldError: another process listens there.
        NbdConnectionError: the socket cannot be made.
    """
    if place.tcp is not None:
        if place.tls is None:
            raise ConfigError(
                "a TCP port without TLS would give every disk to anybody who can reach it",
                hint="Name a directory with certificates by --tls, or serve at a Unix socket.",
            )
        tls = server_tls(place.tls)
        with listen_tcp(place.tcp.host, place.tcp.port) as listener:
            host = f"[{place.tcp.host}]" if ":" in place.tcp.host else place.tcp.host
            yield Listening(listener, tls, f"nbds://{host}:{listener.getsockname()[1]}/{{}}")
        return
    if place.socket is not None:
        path = place.socket.absolute()
        _check_directory(path.parent)
        with listen_unix(path) as listener:
            yield Listening(listener, None, _unix(path))
        return
    with socket_directory(_PREFIX) as directory, listen_unix(directory / SOCKET) as listener:
        yield Listening(listener, None, _unix(directory / SOCKET))


def _unix(path: Path) -> str:
    return f"nbd+unix:///{{}}?socket={quote(str(path))}"


def _check_directory(directory: Path) -> None:
    """Refuse a directory in which another user could put a socket in the place of this one."""
    try:
        found = distrust(directory, directory.stat())
    except OSError as error:
        raise storage_error("use", directory, error) from error
    if found is not None:
        raise ConfigError(
            f"no place for a socket: {found.message}",
            hint=f"{found.hint} Or leave --socket out.",
        )

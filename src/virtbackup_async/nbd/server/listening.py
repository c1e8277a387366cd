"""The sockets that the server listens on. All functions block."""

import os
import socket
import ssl
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from virtbackup_async.errors import ConfigError, LockHeldError, NbdConnectionError
from virtbackup_async.files.socket_directory import is_dead_socket
from virtbackup_async.nbd.protocol.export import AUTHORITY_FILE

MAX_PATH_BYTES: Final = 107
SERVER_CERTIFICATE_FILE: Final = "server-cert.pem"
SERVER_KEY_FILE: Final = "server-key.pem"
_BACKLOG: Final = 64
_SOCKET_MODE: Final = 0o600


@contextmanager
def listen_unix(path: Path) -> Iterator[socket.socket]:
    """Listen on a Unix socket that only this user can connect to; remove it at the end.

    The socket of a dead process is replaced. The caller makes sure that no other user can change
    names in its directory.

    Raises:
        ConfigError: the path is too long.
        LockHeldError: another process listens there.
        NbdConnectionError: the socket cannot be made.
    """
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise ConfigError(
            f"the path of the socket is longer than {MAX_PATH_BYTES} bytes: {path}",
            hint="Choose a directory with a shorter name.",
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            # The kernel gives the file this mode from the first moment on.
            os.fchmod(listener.fileno(), _SOCKET_MODE)
            _remove_dead(path)
            listener.bind(os.fspath(path))
            made = path.lstat()
            listener.listen(_BACKLOG)
        except OSError as error:
            raise NbdConnectionError(
                f"cannot listen on {path}: {error.strerror or error}",
                hint="Choose another path for the socket.",
            ) from error
        try:
            yield listener
        finally:
            with suppress(OSError):
                if os.path.samestat(path.lstat(), made):
                    path.unlink()


@contextmanager
def listen_tcp(host: str, port: int) -> Iterator[socket.socket]:
    """Listen on a TCP port; 0 for any free one.

    Raises:
        NbdConnectionError: the address is not this machine's, or the port is taken.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise NbdConnectionError(
            f"cannot listen on {host}:{port}: {error.strerror or error}"
        ) from error
    with listener:
        yield listener


def server_tls(directory: Path) -> ssl.SSLContext:
    """Return what encrypts connections, and admits clients with a certificate of the authority.

    Args:
        directory: has ``ca-cert.pem``, ``server-cert.pem`` and ``server-key.pem``.

    Raises:
        ConfigError: a file is missing, or is no certificate or key.
    """
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(directory / AUTHORITY_FILE)
        context.load_cert_chain(directory / SERVER_CERTIFICATE_FILE, directory / SERVER_KEY_FILE)
    except OSError as error:  # an SSLError is one
        raise ConfigError(
            f"certificates in {directory} cannot be used: {error.strerror or error}",
            hint=f"It must hold {AUTHORITY_FILE}, {SERVER_CERTIFICATE_FILE} and {SERVER_KEY_FILE}.",
        ) from error
    return context


def _remove_dead(path: Path) -> None:
    """Remove the socket of a process that has ended; anything else of that name stays."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return
        if not is_dead_socket(path):
            raise LockHeldError(
                f"another process listens on {path}", hint="Stop it, or choose another path."
            )
    except FileNotFoundError:
        return
    path.unlink(missing_ok=True)

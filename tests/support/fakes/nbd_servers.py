"""Real NBD servers for a test, ended with the block they are made for.

``qemu-nbd`` and ``nbdkit`` serve one export, ``qemu-storage-daemon`` several at one socket, as a
pull job of QEMU does. All listen when their pid file is there.
"""

import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import trustme

from lab.process import LabError
from virtbackup_async.nbd import TcpAddress, UnixAddress

START_TIMEOUT_S = 20
SERVER_NAME = "nbd.test"


class Export(NamedTuple):
    """An image to serve, and a dirty bitmap of it."""

    image: Path
    format: str
    bitmap: str | None = None


@contextmanager
def qemu_nbd(
    directory: Path, image: Path, *options: str, image_format: str = "raw", tcp: bool = False
) -> Iterator[UnixAddress | TcpAddress]:
    """Serve an image by qemu-nbd, to as many clients as come."""
    address, where = _qemu_address(directory, tcp=tcp)
    with _started(
        directory / "qemu-nbd.pid",
        "qemu-nbd", "--pid-file", directory / "qemu-nbd.pid", "--persistent",
        "--shared=8", "-f", image_format, *where, *options, image,
    ):  # fmt: skip
        yield address


@contextmanager
def storage_daemon(
    directory: Path, socket_path: Path, exports: Mapping[str, Export]
) -> Iterator[None]:
    """Serve images by QEMU's own block layer, each as the export of its name."""
    words = []
    for name, export in exports.items():
        file = f"file.driver=file,file.filename={export.image}"
        bitmap = f",bitmaps.0={export.bitmap}" if export.bitmap else ""
        words += [
            "--blockdev", f"driver={export.format},node-name={name},read-only=on,{file}",
            "--export", f"type=nbd,id={name},node-name={name},name={name},writable=off{bitmap}",
        ]  # fmt: skip
    pid_file = directory / "storage-daemon.pid"
    server = f"addr.type=unix,addr.path={socket_path},max-connections=0"
    with _started(
        pid_file, "qemu-storage-daemon", "--pidfile", pid_file, "--nbd-server", server, *words
    ):
        yield


@contextmanager
def nbdkit(directory: Path, *words: str) -> Iterator[UnixAddress]:
    """Serve what nbdkit's plugins and filters make."""
    address = UnixAddress(directory / "nbdkit.sock")
    with _started(
        directory / "nbdkit.pid",
        "nbdkit", "--foreground", "-U", address.path, "-P", directory / "nbdkit.pid", *words,
    ):  # fmt: skip
        yield address


def certificates(directory: Path) -> Path:
    """Make an authority, a server's and a client's certificate, named as QEMU wants them."""
    directory.mkdir()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(directory / "ca-cert.pem")
    for role, name in (("server", SERVER_NAME), ("client", "client.test")):
        issued = authority.issue_cert(name)
        for part in issued.cert_chain_pems:
            part.write_to_path(directory / f"{role}-cert.pem", append=True)
        issued.private_key_pem.write_to_path(directory / f"{role}-key.pem")
    return directory


@contextmanager
def _started(pid_file: Path, *argv: str | Path) -> Iterator[None]:
    pid_file.unlink(missing_ok=True)
    with subprocess.Popen([str(word) for word in argv]) as server:
        try:
            deadline_s = time.monotonic() + START_TIMEOUT_S
            while not (pid_file.exists() and pid_file.read_text()):
                if server.poll() is not None or time.monotonic() > deadline_s:
                    raise LabError(f"{argv[0]} does not start")
                time.sleep(0.005)
            yield
        finally:
            server.kill()


def _qemu_address(directory: Path, *, tcp: bool) -> tuple[UnixAddress | TcpAddress, list[str]]:
    if not tcp:
        address = UnixAddress(directory / "qemu-nbd.sock")
        return address, ["--socket", str(address.path)]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return TcpAddress("127.0.0.1", port), ["--bind", "127.0.0.1", "--port", str(port)]

"""A real sshd on the loopback interface: unprivileged, with keys and a configuration of its own.

It knows nothing of the keys of this machine's users, and their configuration nothing of it.
"""

import os
import shlex
import shutil
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

WAIT_S = 30
# Of root it wants a directory of the system: it gets one that nobody else sees.
_AS_ROOT = {
    False: [],
    True: [
        *("unshare", "--mount", "--propagation", "private", "sh", "-c"),
        'mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd && exec "$@"',
        "sh",
    ],
}


class SshServer:
    """The daemon, and how a client comes to it.

    Attributes:
        port: of 127.0.0.1.
        programs: has an ``ssh`` that knows a host for each key: begin PATH with it.
    """

    def __init__(self, directory, port):
        self.port = port
        self.programs = directory / "bin"
        self._directory = directory
        self._log = directory / "sshd.log"
        self._process: Any = None

    def start(self):
        """Start it, and wait until it answers."""
        sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        assert sshd is not None, "scripts/lib/system-packages.sh installs openssh-server"
        argv = [sshd, "-D", "-e", "-f", self._directory / "sshd_config"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*_AS_ROOT[os.geteuid() == 0], *argv], stdin=subprocess.DEVNULL, stderr=log
            )
        deadline = monotonic() + WAIT_S
        while not _answers(self.port):
            assert self._process.poll() is None, self._log.read_text()
            assert monotonic() < deadline, self._log.read_text()

    def stop(self):
        """End it, and the connections that it serves."""
        if self._process is not None:
            for child in _children(self._process.pid):
                _kill(child)
            self._process.kill()
            self._process.wait()

    def drop(self):
        """Break all connections, as a network does; the daemon goes on."""
        for child in _children(self._process.pid):
            _kill(child)

    def log(self):
        return self._log.read_text()


@contextmanager
def ssh_server(directory: Path, commands: dict[str, list[str] | None]):
    """A daemon with a key for each role: a host of that name leads to its forced command.

    Args:
        directory: for all of its files; private.
        commands: the forced command of each role; None lets the client choose.
    """
    directory.chmod(0o700)
    port = _free_port()
    server = SshServer(directory, port)
    _key(directory / "host_key")
    lines, hosts = [], []
    for role, command in commands.items():
        _key(directory / role)
        public = (directory / f"{role}.pub").read_text()
        forced = "" if command is None else f',command="{_quoted(shlex.join(command))}"'
        lines.append(f"restrict{forced} {public}")
        hosts.append(_host(directory, role, port))
    (directory / "authorized_keys").write_text("".join(lines))
    (directory / "authorized_keys").chmod(0o600)
    (directory / "client_config").write_text("".join(hosts))
    public = (directory / "host_key.pub").read_text()
    (directory / "known_hosts").write_text(f"virtbackup-test {public}")
    ssh = directory / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {directory}/client_config "$@"\n')
    ssh.chmod(0o755)
    (directory / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\n"
        f"HostKey {directory}/host_key\n"
        f"AuthorizedKeysFile {directory}/authorized_keys\n"
        f"PidFile none\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\n"
        f"SetEnv PATH={Path(sys.executable).parent}:/usr/bin:/bin\n"
        "PermitRootLogin prohibit-password\nStrictModes no\nMaxStartups 100\n"
    )
    try:
        server.start()
        yield server
    finally:
        server.stop()


def server_command(directory, *options):
    """How the installed program serves a directory."""
    return [sys.executable, "-m", "virtbackup_async", "store-server", *options, str(directory)]


def _host(directory, role, port):
    return (
        f"Host {role}\n HostName 127.0.0.1\n Port {port}\n User {_user()}\n"
        f" IdentityFile {directory}/{role}\n IdentitiesOnly yes\n IdentityAgent none\n"
        f" HostKeyAlias virtbackup-test\n UserKnownHostsFile {directory}/known_hosts\n"
        f" GlobalKnownHostsFile none\n StrictHostKeyChecking yes\n"
    )


def _user():
    return subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()


def _key(path):
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True, timeout=WAIT_S
    )


def _quoted(command):
    return command.replace('"', '\\"')


def _free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _answers(port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _children(pid):
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [child for one in map(int, found) for child in (one, *_children(one))]


def _kill(pid):
    try:
        os.kill(pid, 9)
    except ProcessLookupError:
        return

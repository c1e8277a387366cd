"""A libvirt of our own: a daemon in session mode, or the QEMU driver embedded in the caller.

Nothing of the host's libvirt is touched: configuration, state, sockets and guests are below one
short root (see ``roots.py``).

::

    open_daemon()     qemu+unix:///session?socket=ROOT/run/libvirt/libvirt-sock   many clients
    open_embedded()   qemu:///embed?root=ROOT                                     one at a time

libvirtd as root is always the system daemon, with fixed paths. So a root user's daemon runs in a
user namespace that shows root as another user: the files stay root's, and the daemon takes the
paths of a session, which are ours to say. Its guests are in that namespace too.
"""

import contextlib
import os
import pwd
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from lab.guest import cache_root
from lab.process import LabError, run
from lab.roots import daemon_pid, end_process, end_root, guest_pids, make_root, sweep

_REAPER = Path(__file__).with_name("reaper.py")
_START_TIMEOUT_S = 30
_QEMU_CONF = """\
security_driver = "none"
stdio_handler = "file"
remember_owner = 0
namespaces = []
cgroup_controllers = []
"""
_DAEMON_CONF = 'auth_unix_rw = "none"\nlog_filters = "1:qemu.qemu_monitor 3:*"\n'


def as_ordinary_user() -> list[str]:
    """What shows root to a command as nobody, in a user namespace; nothing for another user.

    libvirt looks its user up: it has to be one that every system has.
    """
    if os.geteuid() != 0:
        return []
    nobody = pwd.getpwnam("nobody")
    return ["unshare", f"--map-user={nobody.pw_uid}", f"--map-group={nobody.pw_gid}"]


def installed_version() -> tuple[int, ...]:
    """Which libvirt the lab's daemon is, without starting it: ``(11, 3, 0)``."""
    said = run(_daemon_program(), "--version")
    return tuple(map(int, said.split()[-1].split(".")))


class LibvirtRoot:
    """One private libvirt: its directory, its URI, and ``virsh`` on it."""

    def __init__(self, path: Path, uri: str, driver_cache: Path) -> None:
        self.path = path
        self.uri = uri
        self.images = path / "images"
        self._capabilities = driver_cache / "capabilities"
        self._kept = cache_root() / f"capabilities-{type(self).__name__.lower()}"

    prefix: Sequence[str] = ()
    """What stands before a client's command line."""

    def virsh(self, *argv: str | Path, timeout_s: float = 120) -> str:
        """Run one virsh command on this libvirt and return what it prints.

        Raises:
            LabError: virsh failed; the message holds libvirt's.
        """
        return run(*self.prefix, "virsh", "-q", "-c", self.uri, *argv, timeout_s=timeout_s)

    def start_domain(self, name: str, *, agent: bool) -> None:
        """Start a defined domain; ``agent`` says whether its guest will have one."""
        self.virsh("start", name)

    def guest_pids(self) -> dict[str, int]:
        """The process id of each running domain's QEMU, from the pid files of the root."""
        return guest_pids(self.path)

    def seed_capabilities(self) -> None:
        """Hand in what libvirt found out about QEMU in an earlier run: probing takes 8 s.

        libvirt itself checks that it is still true of this QEMU, kernel and libvirt.
        """
        if self._kept.is_dir():
            self._capabilities.mkdir(parents=True)
            for kept in self._kept.glob("*.xml"):
                shutil.copyfile(kept, self._capabilities / kept.name)

    def keep_capabilities(self) -> None:
        """Keep what libvirt found out, for the next root."""
        self._kept.mkdir(parents=True, exist_ok=True)
        for found in self._capabilities.glob("*.xml"):
            with tempfile.NamedTemporaryFile(dir=self._kept, delete=False) as file:
                file.write(found.read_bytes())
            Path(file.name).rename(self._kept / found.name)


class Embedded(LibvirtRoot):
    """The QEMU driver inside each client; its guests outlive the client that started them.

    A client that opens the root finds the guests running, but reconnects to their agents only
    after the open has returned: ``virsh`` waits for that here, by waiting for an event that never
    comes. Nobody listens between two clients, so the one that starts a guest stays until the agent
    has said hello.
    """

    _SETTLE = "event --event watchdog --timeout 1"
    _SETTLED = "event loop timed out\nevents received: 0\n"

    def __init__(self, path: Path) -> None:
        super().__init__(path, f"qemu:///embed?root={path}", path / "cache/qemu")
        # For root, the driver wants the distribution's QEMU user, which need not exist.
        self.prefix = as_ordinary_user()

    def virsh(self, *argv: str | Path, timeout_s: float = 120) -> str:
        command = shlex.join(str(word) for word in argv)
        said = super().virsh(f"{self._SETTLE}; {command}", timeout_s=timeout_s)
        return said.removeprefix(self._SETTLED)

    def start_domain(self, name: str, *, agent: bool) -> None:
        start = shlex.join(["start", name])
        hello = "event --event agent-lifecycle --timeout 90"
        super().virsh(f"{start}; {hello}" if agent else start)


class Daemon(LibvirtRoot):
    """A libvirtd of our own. Killing it leaves its guests running; ``start`` finds them again."""

    def __init__(self, path: Path) -> None:
        self.socket = path / "run/libvirt/libvirt-sock"
        super().__init__(
            path,
            f"qemu+unix:///session?socket={self.socket}",
            path / "cache/libvirt/qemu/cache",
        )
        # One for each start: it lives as long as the guests that were started then.
        self._reapers: list[subprocess.Popen[bytes]] = []

    @property
    def pid(self) -> int:
        """The daemon's process id."""
        pid = daemon_pid(self.path)
        if pid is None:
            raise LabError("the lab's libvirt daemon does not run")
        return pid

    def start(self) -> None:
        """Start the daemon and wait until it answers.

        Raises:
            LabError: it ended, or does not answer; the message holds its log's end.
        """
        self.socket.unlink(missing_ok=True)
        with (self.path / "daemon.log").open("ab") as log:
            reaper = subprocess.Popen(
                self._command(), env=self._environment(), stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self._reapers.append(reaper)
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._answers():
            if reaper.poll() is not None or time.monotonic() > deadline:
                log_end = (self.path / "daemon.log").read_text(errors="replace")[-2000:]
                raise LabError(f"the lab's libvirt daemon did not start: {log_end}")
            time.sleep(0.02)

    def ensure_started(self) -> None:
        """Start the daemon where a test has left it killed."""
        if daemon_pid(self.path) is None:
            self.start()

    def stop(self) -> None:
        """End the daemon as systemd would; its guests run on."""
        end_process(daemon_pid(self.path), self.path, signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL the daemon; its guests run on."""
        end_process(daemon_pid(self.path), self.path, signal.SIGKILL)

    def end(self) -> None:
        """Stop the daemon, kill its guests and remove its root."""
        end_root(self.path)
        for reaper in self._reapers:
            reaper.wait(_START_TIMEOUT_S)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    def _command(self) -> list[str]:
        return [
            *(sys.executable, "-SE", str(_REAPER), str(self.path / "daemon.pid")),
            *as_ordinary_user(),
            *(_daemon_program(), "--config", str(self.path / "libvirtd.conf")),
            *("--pid-file", str(self.path / "libvirtd.pid")),
        ]

    def _environment(self) -> dict[str, str]:
        places = {"CONFIG": "c", "RUNTIME": "run", "CACHE": "cache", "DATA": "data"}
        homes = {
            f"XDG_{name}_{'DIR' if name == 'RUNTIME' else 'HOME'}": str(self.path / place)
            for name, place in places.items()
        }
        return {"PATH": os.environ["PATH"], "HOME": str(self.path / "home"), **homes}


def make_daemon(owner_pid: int) -> Daemon:
    """A daemon, not yet started; ``end`` ends it, or ``sweep`` after its owner."""
    sweep()
    daemon = Daemon(make_root(owner_pid))
    _write(daemon.path / "c/libvirt/qemu.conf", _QEMU_CONF)
    _write(daemon.path / "libvirtd.conf", _DAEMON_CONF)
    for name in ("run", "cache", "data", "home"):
        (daemon.path / name).mkdir(mode=0o700)
    daemon.seed_capabilities()
    return daemon


@contextlib.contextmanager
def open_daemon() -> Iterator[Daemon]:
    """A running private daemon; on leaving, its guests are killed and its root removed."""
    daemon = make_daemon(os.getpid())
    try:
        daemon.start()
        yield daemon
        daemon.keep_capabilities()
    finally:
        daemon.end()


def make_embedded(owner_pid: int) -> Embedded:
    """A root for the embedded driver; ``roots.end_root`` ends it, or ``sweep`` after its owner."""
    sweep()
    path = make_root(owner_pid)
    _write(path / "etc/qemu.conf", _QEMU_CONF)
    embedded = Embedded(path)
    embedded.seed_capabilities()
    return embedded


@contextlib.contextmanager
def open_embedded() -> Iterator[Embedded]:
    """A root for the embedded driver, ended on leaving.

    Each client has to close it before the next one opens it: ``virsh`` here does.
    """
    embedded = make_embedded(os.getpid())
    try:
        yield embedded
        embedded.keep_capabilities()
    finally:
        end_root(embedded.path)


def _daemon_program() -> str:
    program = shutil.which("libvirtd") or shutil.which("virtqemud")
    if program is None:
        raise LabError("neither libvirtd nor virtqemud is installed: run scripts/test once")
    return program


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)

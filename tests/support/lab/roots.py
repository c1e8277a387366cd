"""Short private directories that hold one libvirt each, and their end whatever happened before.

::

    /tmp/vbk-<random>/
        owner              "<pid> <start time>" of the process the root belongs to
        images/ console/   for the domains: disk images, serial consoles
        ...                what libvirt_root.py puts there

Short, because libvirt makes sockets deep below it, and a socket's path has 107 bytes. Processes are
ended only by the pid files inside the root, and only while their command line names the root: a pid
that somebody else has got since is left alone. Called by ``libvirt_root.py``.
"""

import contextlib
import os
import select
import shutil
import signal
import tempfile
from pathlib import Path

_PREFIX = "vbk-"
_PLACE = Path("/tmp")
_END_TIMEOUT_S = 15
_GONE = "gone"


def make_root(owner_pid: int) -> Path:
    """Make an empty root that ``sweep`` removes once its owner is gone."""
    root = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_PLACE))
    for name in ("images", "console"):
        (root / name).mkdir(mode=0o700)
    # Whole at once: another process may sweep right now.
    written = root / "owner.new"
    written.write_text(f"{owner_pid} {_start_time(owner_pid)}")
    written.rename(root / "owner")
    return root


def sweep() -> list[Path]:
    """End the roots of this user whose owner died without doing it; return them."""
    dead = [root for root in _PLACE.glob(f"{_PREFIX}*") if _is_ours(root) and not _has_owner(root)]
    for root in dead:
        end_root(root)
    return dead


def end_root(root: Path) -> None:
    """Stop the root's daemon, kill its guests, remove it."""
    end_process(daemon_pid(root), root, signal.SIGTERM)
    for pid_file in root.glob("run/**/*.pid"):
        end_process(_pid(pid_file), root, signal.SIGKILL)
    shutil.rmtree(root, ignore_errors=True)


def end_process(pid: int | None, root: Path, first: signal.Signals) -> None:
    """Signal a process of the root, wait, and kill it if it stays.

    A process that ends loses its command line before its files and its locks on them: it is waited
    for until nothing is left of any of its threads.
    """
    if pid is None or not is_of_root(pid, root):
        return
    with contextlib.ExitStack() as stack:
        # It may have gone, and been waited for, by itself.
        stack.enter_context(contextlib.suppress(ProcessLookupError))
        process = os.pidfd_open(pid)
        stack.callback(os.close, process)
        for number in (first, signal.SIGKILL):
            signal.pidfd_send_signal(process, number)
            if select.select([process], [], [], _END_TIMEOUT_S)[0]:
                return


def is_of_root(pid: int, root: Path) -> bool:
    """Whether the process lives and has the root in its command line (a zombie has none)."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return f"{root}/".encode() in command


def daemon_pid(root: Path) -> int | None:
    """The root's libvirtd, if it lives."""
    pid = _pid(root / "daemon.pid")
    return pid if pid and is_of_root(pid, root) else None


def guest_pids(root: Path) -> dict[str, int]:
    """The QEMU processes of the root, by domain name."""
    files = [path for path in root.glob("run/**/*.pid") if path.name != "driver.pid"]
    found = {path.stem: _pid(path) for path in files}
    return {name: pid for name, pid in found.items() if pid and is_of_root(pid, root)}


def _pid(pid_file: Path) -> int | None:
    try:
        return int(pid_file.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None


def _is_ours(root: Path) -> bool:
    try:
        return root.lstat().st_uid == os.geteuid() and (root / "owner").is_file()
    except OSError:
        return False


def _has_owner(root: Path) -> bool:
    try:
        pid, started = (root / "owner").read_text().split()
        return started == _start_time(int(pid)) != _GONE
    except (OSError, ValueError):
        return False


def _start_time(pid: int) -> str:
    """Clock ticks since boot: with the pid it names a process for good."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except OSError:
        return _GONE

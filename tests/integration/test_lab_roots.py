"""Roots of the lab end with their owner, and never take a stranger's process with them."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.libvirt_root import Daemon, open_daemon
from lab.roots import end_root, is_of_root, make_root, sweep


@pytest.fixture
def ended_pid() -> int:
    """The id of a process that has been and is no more."""
    with subprocess.Popen(["/bin/true"]) as process:
        pass
    return process.pid


@pytest.fixture
def root() -> Iterator[Path]:
    """A root of this process."""
    path = make_root(os.getpid())
    yield path
    end_root(path)


def test_sweep_ends_roots_of_dead_owners_only(root: Path, ended_pid: int) -> None:
    orphan = make_root(ended_pid)
    assert orphan in sweep()
    assert not orphan.exists()
    assert root.is_dir()


def test_sweep_ends_the_root_of_a_reused_pid(root: Path) -> None:
    # Our own pid, with a start time that is not ours: the owner died and the pid was given again.
    (root / "owner").write_text(f"{os.getpid()} 1")
    assert root in sweep()


def test_sweep_leaves_directories_that_say_no_owner(tmp_path: Path) -> None:
    stranger = Path("/tmp") / f"vbk-{tmp_path.name}"
    stranger.mkdir()
    try:
        assert stranger not in sweep()
        assert stranger.is_dir()
    finally:
        stranger.rmdir()


def test_end_leaves_a_process_that_does_not_name_the_root(root: Path) -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as stranger:
        (root / "run").mkdir()
        (root / "run/guest.pid").write_text(str(stranger.pid))
        end_root(root)
        assert not root.exists()
        assert stranger.poll() is None
        stranger.kill()


def test_end_kills_a_process_that_ignores_sigterm(root: Path) -> None:
    script = 'trap "" TERM; echo ready; while :; do sleep 0.05; done'
    argv = ["sh", "-c", script, f"{root}/daemon"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        (root / "run").mkdir()
        (root / "run/guest.pid").write_text(str(process.pid))
        end_root(root)
        assert process.wait() == -signal.SIGKILL


def test_daemon_leaves_nothing_behind() -> None:
    with open_daemon() as daemon:
        path, pid = daemon.path, daemon.pid
        assert is_of_root(pid, path)
    assert not path.exists()
    assert not is_of_root(pid, path)


def test_two_daemons_do_not_meet(daemon: Daemon) -> None:
    with open_daemon() as other:
        assert other.uri != daemon.uri
        assert other.virsh("list", "--all").strip() == ""

"""A guest is frozen, and whoever froze it is stopped, killed or told to end: it thaws by itself.

With ``method: pull`` the freeze is ours. The command stands still at each step of it, and gets each
signal there; afterwards the guest is thawed, without ``clean`` and without the next backup. With
SIGSTOP that takes as long as the guard waits: all steps of it only with ``--all-points``.
"""

import os
import signal
import threading
from pathlib import Path

import pytest
import yaml

from faults.command import run_between
from lab.disks import DiskSpec
from lab.domains import running
from virtbackup_async.catalog.definition_file import loads

STEPS = (
    "after getTime",
    "before fsFreeze",
    "after fsFreeze",
    "before backupBegin",
    "after backupBegin",
    "before fsThaw",
    "after fsThaw",
)
FROZEN = STEPS[2:6]
ENDING = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}
SIGNALS = (*ENDING, "SIGKILL", "SIGQUIT", "SIGTSTP", "SIGSTOP")
QUICK = {"SIGKILL": STEPS, "SIGTSTP": STEPS, "SIGTERM": FROZEN[:2], "SIGSTOP": FROZEN[:1]}


def pytest_generate_tests(metafunc):
    if "step" in metafunc.fixturenames:
        everything = metafunc.config.getoption("--all-points", default=False)
        rows = [
            (name, step)
            for name in SIGNALS
            for step in (STEPS if everything else QUICK.get(name, FROZEN[:1]))
        ]
        metafunc.parametrize(("name", "step"), rows)


@pytest.fixture(scope="module")
def guest(daemon_of_the_run):
    daemon_of_the_run.ensure_started()
    with running(daemon_of_the_run, "stopped", [DiskSpec("vda")], writer="vda") as domain:
        yield domain


@pytest.fixture
def config(guest, tmp_path):
    group = {
        "target": str(tmp_path / "target"), "autostart": True, "hosts": [guest.name],
        "quiesce": True, "method": "pull", "packager": "directory",
    }  # fmt: skip
    (tmp_path / "target").mkdir()
    path = tmp_path / "config.yml"
    path.write_text(yaml.safe_dump({"uri": guest.root.uri, "groups": {"all": group}}))
    yield path
    # A job of a killed command is ended, whatever the test has found.
    assert run_between(("-c", path, "clean", "-b"), lambda _point, _process: None).returncode == 0


def is_thawed(domain):
    return domain.agent("guest-fsfreeze-status") == "thawed"


def state(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


class Signalling:
    """Sends a signal at a step, and looks at the guest as soon as the command has stopped."""

    def __init__(self, guest, name, step):
        self.guest = guest
        self.name = name
        self.step = step
        self.frozen_at_stop = None
        self._watcher = threading.Thread(target=self._watch)

    def __call__(self, point, process):
        if point != self.step:
            return
        if self.step in FROZEN:
            assert not is_thawed(self.guest)
        self.pid = process.pid
        os.kill(process.pid, getattr(signal, self.name))
        if self.name == "SIGTSTP":
            self._watcher.start()
        elif self.name == "SIGSTOP":
            if self.step in FROZEN:
                self.guest._wait(lambda: is_thawed(self.guest), "thaw", 30)
            os.kill(process.pid, signal.SIGCONT)
        elif self.name in {"SIGKILL", "SIGQUIT"}:
            process.join()
            self.guest._wait(lambda: is_thawed(self.guest), "thaw", 10)

    def _watch(self):
        self.guest._wait(lambda: state(self.pid) == "T", "let the command stop", 30)
        self.frozen_at_stop = not is_thawed(self.guest)
        os.kill(self.pid, signal.SIGCONT)

    def finish(self):
        assert self.pid
        if self.name == "SIGTSTP":
            self._watcher.join()


@pytest.mark.timeout(120)
def test_the_guest_is_thawed(guest, config, tmp_path, name, step):
    images = guest.images()
    signalling = Signalling(guest, name, step)
    ended = run_between(("-c", config, "backup"), signalling)
    signalling.finish()

    assert is_thawed(guest)
    assert guest.images() == images
    if name in {"SIGKILL", "SIGQUIT"}:
        assert ended.returncode == -getattr(signal, name)
    else:
        assert ended.returncode == ENDING.get(name, 0), ended.err
    definitions = [loads(path.read_bytes(), path) for path in tmp_path.glob("target/*/*.json")]
    if name == "SIGTSTP":
        assert signalling.frozen_at_stop is False
        assert "stopped: overlays or scratch images grow until it continues: " in ended.err
        assert [found.quiesced for found in definitions] == [True]
    elif name == "SIGSTOP" and step in FROZEN[:3]:
        assert [found.quiesced for found in definitions] == [False]
        assert "this process stood still" in definitions[0].not_quiesced

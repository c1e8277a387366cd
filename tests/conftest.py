"""What holds for every test, wherever the run was started from."""

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from object_server import ObjectServer, set_credentials, shared_object_server
from ssh_server import SshServer, ssh_server
from virtbackup_async.repository.storage.served.ssh import close_all

STATE_VARIABLE = "VIRTBACKUP_STATE_DIRECTORY"


def pytest_addoption(parser):
    parser.addoption(
        "--lossy-seed",
        default="0",
        help="which answers of the object store are lost or lies: each seed is another run",
    )
    parser.addoption(
        "--histories", default="2", help="how many random histories of an object store to play"
    )


def pytest_configure(config):
    # What a test's backups are noted in is never this host's own directory, whoever starts them.
    state = tempfile.TemporaryDirectory(prefix="virtbackup-state-")
    config.add_cleanup(state.cleanup)
    os.environ[STATE_VARIABLE] = state.name
    os.environ["XDG_STATE_HOME"] = state.name
    os.environ["VIRTBACKUP_CACHE_DIRECTORY"] = f"{state.name}/cache"
    os.environ.pop("VIRTBACKUP_CONFIG", None)
    # A shell's background job and nohup ignore signals, children inherit it, and the program
    # respects it: tests that send these signals need them as a terminal gives them.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def state_directory(tmp_path, monkeypatch):
    """A state directory of the test's own: what one test leaves is no other's business."""
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "state-of-the-host"))
    return tmp_path / "state-of-the-host"


@pytest.fixture(scope="session")
def object_server_of_the_run(tmp_path_factory):
    """SeaweedFS, shared by all processes of the run; the first that needs it starts it."""
    base = tmp_path_factory.getbasetemp()
    run = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with shared_object_server(run / "object-server") as server:
        yield server


@pytest.fixture
def object_server(object_server_of_the_run, monkeypatch) -> ObjectServer:
    """SeaweedFS, with the credentials for it in the environment."""
    set_credentials(monkeypatch)
    return object_server_of_the_run


@pytest.fixture(scope="session")
def ssh_server_of_the_run():
    """An sshd of this process's own, without a forced command."""
    with (
        tempfile.TemporaryDirectory(prefix="virtbackup-ssh-") as directory,
        ssh_server(Path(directory), {"nas": None}) as server,
    ):
        yield server


@pytest.fixture
def nas(ssh_server_of_the_run, monkeypatch) -> Iterator[SshServer]:
    """A host of that name for ``ssh``, where any directory of this one can be a target."""
    monkeypatch.setenv("PATH", f"{ssh_server_of_the_run.programs}:{os.environ['PATH']}")
    yield ssh_server_of_the_run
    close_all()

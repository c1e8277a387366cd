"""cli/commands/store_server.py: the installed command, as ssh starts it."""

import signal
import subprocess
import sys
from contextlib import closing

import pytest

from store_servers import Servers, served_by
from virtbackup_async.errors import StorageError, StorageFullError
from virtbackup_async.processes import Ended
from virtbackup_async.repository.storage.interface import Kind
from virtbackup_async.repository.storage.layout import DIRECTORY
from virtbackup_async.repository.storage.served.process_server import ProcessServer

COMMAND = [sys.executable, "-m", "virtbackup_async", "store-server"]


def started(ends, *arguments):
    """A storage that the command serves; ``ends`` gets how it ended."""

    def explain(ended):
        ends.append(ended)

    return served_by(Servers(lambda: ProcessServer([*COMMAND, *arguments], explain)))


def test_a_directory_is_served_to_a_writer_with_a_quota(tmp_path):
    ends: list[Ended] = []
    (tmp_path / "old").write_bytes(b"old")
    storage = started(ends, "--append-only", "--quota", "1MiB", str(tmp_path))
    with closing(storage.link):
        assert storage.append_only
        assert storage.names("", {Kind.FILE}) == ["old"]
        storage.make_directory(DIRECTORY)
        storage.put_new("new", b"x")
        with pytest.raises(StorageError, match="may only add files"):
            storage.remove("old")
        with pytest.raises(StorageFullError, match=r"quota of 1\.0 MiB"):
            storage.put_new("big", b"x" * 1_100_000)
        assert storage.free_bytes() < 1 << 20
    assert [ended.returncode for ended in ends] == [0]
    assert ends[0].stderr == b""


def test_a_keeper_may_change_all(tmp_path):
    (tmp_path / "old").write_bytes(b"old")
    storage = started([], "--", str(tmp_path))
    with closing(storage.link):
        assert not storage.append_only
        storage.replace("old", b"new")
        storage.remove("old")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_server_that_is_stopped_leaves_nothing(tmp_path, number):
    ends: list[Ended] = []
    servers = Servers(lambda: ProcessServer([*COMMAND, str(tmp_path)], ends.append))
    storage = served_by(servers)
    with closing(storage.link):
        hidden = storage.create_hidden("a")
        hidden.append(b"x")
        lease = storage.take_lease("lease", b"who", ())
        assert lease.is_held()
        subprocess.run(["kill", f"-{number}", str(servers.servers[-1].pid)], check=True)
        with pytest.raises(StorageError):
            lease.is_held()
        assert storage.names("", {Kind.FILE}) == []
    assert signal.Signals(number).name in ends[0].last_words


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["/none/such"], 22, "virtbackup: target /none/such is not a directory. "),
        (["--quota", "much", "/"], 2, "'much' is no size"),
        (["--quota", "0", "/"], 2, "'0' is no size"),
        ([], 2, "DIRECTORY"),
    ],
)
def test_what_cannot_be_served_is_said_on_stderr(arguments, code, message):
    ended = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == code
    assert ended.stdout == ""
    assert message in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_client_that_speaks_something_else_is_dropped(tmp_path):
    ended = subprocess.run(
        [*COMMAND, str(tmp_path)], input=b"GET / HTTP/1.1\r\n\r\n", capture_output=True, check=False
    )
    assert ended.returncode == 22
    assert b"does not speak the protocol" in ended.stderr

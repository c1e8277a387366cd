"""served/ssh.py: where ssh goes, and what its end means."""

import shlex

import pytest

from virtbackup_async.errors import StorageError
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.processes import Ended
from virtbackup_async.repository.storage.interface import Kind
from virtbackup_async.repository.storage.served.ssh import Destination, open_ssh_storage


def destination(url):
    return Destination.of(StorageLocation.of(url))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ssh://nas/srv/backups", ("nas", None, "/srv/backups")),
        ("ssh://backup@nas.example.org:2222/srv", ("backup@nas.example.org", 2222, "/srv")),
        ("ssh://backup@[2001:db8::1]:22/x", ("backup@2001:db8::1", 22, "/x")),
        ("ssh://nas/it's $HOME; `x`\n", ("nas", None, "/it's $HOME; `x`\n")),
    ],
)
def test_a_url_names_a_directory_on_a_host(url, expected):
    found = destination(url)
    assert (found.login, found.port, found.directory) == expected


@pytest.mark.parametrize(
    "url",
    [
        "ssh://nas", "ssh://nas/", "ssh:///srv", "ssh://-oProxyCommand=x/srv", "ssh://-x@nas/srv",
        "ssh://a b/srv", "ssh://nas:x/srv", "ssh://nas:222222/srv", "ssh://user:secret@nas/srv",
        "ssh://nas/a\0b", "ssh://nas;reboot/srv", "ssh://[::1/srv",
    ],
)  # fmt: skip
def test_anything_else_is_refused(url):
    with pytest.raises(StorageError, match="names no directory on a host") as error:
        destination(url)
    assert "ssh://[USER@]HOST[:PORT]/DIRECTORY" in error.value.hint


def test_the_shell_over_there_sees_one_word_for_the_directory():
    command = destination("ssh://u@nas:22/it's $HOME; `x`").command()
    assert command[:2] == ["ssh", "-T"]
    assert command[-3:-1] == ["--", "u@nas"]
    assert shlex.split(command[-1]) == ["virtbackup", "store-server", "--", "/it's $HOME; `x`"]
    assert "BatchMode=yes" in command
    assert command[command.index("-p") + 1] == "22"


@pytest.mark.parametrize(
    ("code", "stderr", "message", "is_final"),
    [
        (255, "u@nas: Permission denied (publickey).", "Permission denied (publickey)", True),
        (255, "No key.\nHost key verification failed.", "Host key verification failed", True),
        (255, "ssh: connect to host nas port 22: No route", "ssh: connect to host nas", False),
        (255, "Timeout, server nas not responding.", "server nas not responding", False),
        (127, "sh: 1: virtbackup: not found", "no program 'virtbackup'", True),
        (22, "virtbackup: target /srv is not a directory.", "target /srv is not a dir", True),
        (255, "\x1b[31mred\x1b[0m\x07", "red", False),
        (-9, "", "killed", False),
    ],
)
def test_the_end_of_ssh_is_explained_in_a_line(code, stderr, message, is_final):
    lost = destination("ssh://u@nas/srv").explain(Ended(code, b"", stderr.encode()))
    assert message in str(lost)
    assert str(lost).isprintable()
    assert lost.is_final is is_final


def test_an_orderly_end_needs_no_words():
    assert destination("ssh://u@nas/srv").explain(Ended(0, b"", b"")) is None


def test_ssh_that_is_missing_is_reported(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    storage = open_ssh_storage(StorageLocation.of("ssh://nas/missing-ssh"))
    with pytest.raises(StorageError, match="ssh cannot be started") as error:
        storage.names("", set(Kind))
    assert "OpenSSH" in error.value.hint


def test_a_process_has_one_connection_to_a_target(nas, tmp_path):
    at = StorageLocation.of(f"ssh://nas{tmp_path}")
    assert open_ssh_storage(at) is open_ssh_storage(at)


def test_an_unknown_host_key_is_refused(nas, tmp_path):
    (nas.programs.parent / "known_hosts").rename(nas.programs.parent / "aside")
    try:
        storage = open_ssh_storage(StorageLocation.of(f"ssh://nas{tmp_path}/x"))
        with pytest.raises(StorageError, match="Host key verification failed"):
            storage.exists("d")
    finally:
        (nas.programs.parent / "aside").rename(nas.programs.parent / "known_hosts")


def test_a_missing_directory_is_reported_as_on_this_machine(nas, tmp_path):
    storage = open_ssh_storage(StorageLocation.of(f"ssh://nas{tmp_path}/none"))
    with pytest.raises(StorageError, match="none is not a directory"):
        storage.exists("d")


def test_a_dropped_connection_is_made_again(nas, tmp_path):
    storage = open_ssh_storage(StorageLocation.of(f"ssh://nas{tmp_path}"))
    storage.put_new("a", b"x" * 5000)
    file = storage.open("a")
    nas.drop()
    assert file.read(5000, 0) == b"x" * 5000
    nas.drop()
    assert storage.names("", {Kind.FILE}) == ["a"]

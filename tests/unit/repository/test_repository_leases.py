"""Leases: the living are told from the dead, on this host and on others."""

import os
import socket

import pytest

from virtbackup_async.errors import LockHeldError, StorageError
from virtbackup_async.repository.format import sealed_json
from virtbackup_async.repository.storage import leases
from virtbackup_async.repository.storage.leases import (
    EXPIRY_S,
    PRUNER,
    living_holders,
    remove_debris,
    take_lease,
    take_prune_lease,
)
from virtbackup_async.repository.storage.repository_file import make_repository

A = "0a" * 12


def take_lease_in(directory):
    take_lease(directory, "0b" * 12)


def leave(directory, token, host, age_s=0.0):
    """A lease whose holder does not hold a lock that this kernel knows of."""
    path = directory / token
    path.write_bytes(sealed_json.dumps({"host": host, "pid": 1}))
    now = path.stat().st_mtime - age_s
    os.utime(path, (now, now))
    return path


def test_a_holder_is_seen_until_it_lets_go(tmp_path):
    lease = take_lease(tmp_path, A)
    assert living_holders(tmp_path) == {A}
    lease.check()
    lease.close()
    assert living_holders(tmp_path) == frozenset()
    assert list(tmp_path.iterdir()) == []


def test_a_name_is_held_by_one(tmp_path):
    lease = take_lease(tmp_path, A)
    with pytest.raises(LockHeldError):
        take_lease(tmp_path, A)
    assert [path.name for path in tmp_path.iterdir()] == [A]
    lease.close()


def test_a_dead_holder_of_this_host_is_broken_at_once(tmp_path):
    path = leave(tmp_path, A, leases._host())
    assert living_holders(tmp_path) == frozenset()
    assert not path.exists()


# The last one was touched before the file system's clock was set back.
@pytest.mark.parametrize(
    ("age_s", "lives"), [(0, True), (EXPIRY_S + 60, False), (-2 * EXPIRY_S, True)]
)
def test_a_holder_elsewhere_lives_as_long_as_it_says_so(tmp_path, age_s, lives):
    path = leave(tmp_path, A, "another host", age_s)
    assert (A in living_holders(tmp_path)) == path.exists() == lives


def test_a_damaged_lease_counts_as_one_of_elsewhere(tmp_path):
    path = leave(tmp_path, A, "x")
    path.write_bytes(b"?")
    assert living_holders(tmp_path) == {A}


def test_who_was_taken_for_dead_is_told(tmp_path):
    lease = take_lease(tmp_path, A)
    (tmp_path / A).unlink()
    leave(tmp_path, A, "somebody else")
    with pytest.raises(LockHeldError, match="broken"):
        lease.check()
    lease.close()
    assert (tmp_path / A).exists(), "it is somebody else's"


def test_refreshing_is_seen(tmp_path):
    lease = take_lease(tmp_path, A)
    os.utime(tmp_path / A, (0, 0))
    lease.refresh()
    assert (tmp_path / A).stat().st_mtime > 0
    lease.close()


def oddities(directory, monkeypatch):
    """Put into a directory what is no lease, all of it older than a lease may become."""
    monkeypatch.chdir(directory)
    (directory / "passwd").write_text("root")
    (directory / "0b").write_bytes(sealed_json.dumps({"host": leases._host(), "pid": 1}))
    (directory / ("0c" * 12)).write_text("no checksum")
    (directory / ".hidden").write_text("x")
    os.mkfifo("0d" * 12)
    (directory / ("0e" * 12)).mkdir()
    (directory / ("0f" * 12)).symlink_to(directory / "passwd")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("1a" * 12)
    for path in directory.iterdir():
        os.utime(path, (0, 0), follow_symlinks=False)
    return sorted(directory.iterdir())


def test_what_is_no_lease_is_neither_counted_nor_removed(tmp_path, monkeypatch):
    found = oddities(tmp_path, monkeypatch)
    dead = leave(tmp_path, A, leases._host())
    assert living_holders(tmp_path) == frozenset()
    assert not dead.exists()
    assert sorted(tmp_path.iterdir()) == found


def test_only_temporary_files_of_ours_are_debris(tmp_path, monkeypatch):
    repository = make_repository(tmp_path)
    found = oddities(repository.leases, monkeypatch)
    ours = [repository.leases / f".{'0' * 16}", repository.index / f".virtbackup-{'0' * 16}.tmp"]
    for path in ours:
        path.write_text("x")
        os.utime(path, (0, 0))
    remove_debris(repository)
    assert not any(path.exists() for path in ours)
    assert sorted(repository.leases.iterdir()) == found


@pytest.mark.parametrize("work", [take_lease_in, living_holders])
def test_leases_that_are_a_link_are_left_alone(tmp_path, monkeypatch, work):
    (tmp_path / "outside").mkdir()
    found = oddities(tmp_path / "outside", monkeypatch)
    dead = leave(tmp_path / "outside", A, leases._host())
    (tmp_path / "leases").symlink_to(tmp_path / "outside")
    with pytest.raises(StorageError, match="a symlink, not followed"):
        work(tmp_path / "leases")
    assert sorted((tmp_path / "outside").iterdir()) == sorted([*found, dead])


def test_a_sweep_that_left_no_note_does_not_keep_others_out(tmp_path):
    repository = make_repository(tmp_path)
    (repository.leases / PRUNER).write_bytes(b"")
    with pytest.raises(LockHeldError):
        take_prune_lease(repository)
    os.utime(repository.leases / PRUNER, (0, 0))
    take_prune_lease(repository).close()

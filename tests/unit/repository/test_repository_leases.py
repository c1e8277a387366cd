"""Leases: the living are told from the dead, on this host and on others."""

import os
import socket

import pytest

from fakes.repository_files import files_of
from virtbackup_async.errors import LockHeldError, StorageError
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository.format import sealed_json
from virtbackup_async.repository.storage.layout import LEASES
from virtbackup_async.repository.storage.leases import (
    EXPIRY_S,
    PRUNER,
    living_holders,
    remove_temporary_files,
    take_lease,
    take_prune_lease,
)
from virtbackup_async.repository.storage.repository_file import make_repository
from virtbackup_async.repository.storage.this_host import host_id

A = "0a" * 12


@pytest.fixture
def storage(tmp_path):
    return make_repository(StorageLocation.of(tmp_path)).storage


@pytest.fixture
def directory(storage):
    return storage.path(LEASES)


def take_another(storage):
    take_lease(storage, "0b" * 12)


def leave(directory, token, host, age_s=0.0):
    """A lease whose holder does not hold a lock that this kernel knows of."""
    path = directory / token
    path.write_bytes(sealed_json.dumps({"host": host, "pid": 1}))
    now = path.stat().st_mtime - age_s
    os.utime(path, (now, now))
    return path


def test_a_holder_is_seen_until_it_lets_go(storage, directory):
    lease = take_lease(storage, A)
    assert living_holders(storage) == {A}
    lease.check()
    lease.close()
    assert living_holders(storage) == frozenset()
    assert list(directory.iterdir()) == []


def test_a_name_is_held_by_one(storage, directory):
    lease = take_lease(storage, A)
    with pytest.raises(LockHeldError):
        take_lease(storage, A)
    assert [path.name for path in directory.iterdir()] == [A]
    lease.close()


def test_a_dead_holder_of_this_host_is_broken_at_once(storage, directory):
    path = leave(directory, A, host_id())
    assert living_holders(storage) == frozenset()
    assert not path.exists()


# The last one was touched before the file system's clock was set back.
@pytest.mark.parametrize(
    ("age_s", "lives"), [(0, True), (EXPIRY_S + 60, False), (-2 * EXPIRY_S, True)]
)
def test_a_holder_elsewhere_lives_as_long_as_it_says_so(storage, directory, age_s, lives):
    path = leave(directory, A, "another host", age_s)
    assert (A in living_holders(storage)) == path.exists() == lives


def test_a_damaged_lease_counts_as_one_of_elsewhere(storage, directory):
    path = leave(directory, A, "x")
    path.write_bytes(b"?")
    assert living_holders(storage) == {A}


def test_who_was_taken_for_dead_is_told(storage, directory):
    lease = take_lease(storage, A)
    (directory / A).unlink()
    leave(directory, A, "somebody else")
    with pytest.raises(LockHeldError, match="broken"):
        lease.check()
    lease.close()
    assert (directory / A).exists(), "it is somebody else's"


def test_refreshing_is_seen(storage, directory):
    lease = take_lease(storage, A)
    os.utime(directory / A, (0, 0))
    lease.refresh()
    assert (directory / A).stat().st_mtime > 0
    lease.close()


def oddities(directory, monkeypatch):
    """Put into a directory what is no lease, all of it older than a lease may become."""
    monkeypatch.chdir(directory)
    (directory / "passwd").write_text("root")
    (directory / "0b").write_bytes(sealed_json.dumps({"host": host_id(), "pid": 1}))
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


def test_what_is_no_lease_is_neither_counted_nor_removed(storage, directory, monkeypatch):
    found = oddities(directory, monkeypatch)
    dead = leave(directory, A, host_id())
    assert living_holders(storage) == frozenset()
    assert not dead.exists()
    assert sorted(directory.iterdir()) == found


def test_only_temporary_files_of_ours_are_debris(tmp_path, monkeypatch):
    repository = make_repository(StorageLocation.of(tmp_path))
    files = files_of(repository)
    found = oddities(files.leases, monkeypatch)
    ours = [files.leases / f".{'0' * 16}", files.index / f".virtbackup-{'0' * 16}.tmp"]
    for path in ours:
        path.write_text("x")
        os.utime(path, (0, 0))
    remove_temporary_files(repository.storage)
    assert not any(path.exists() for path in ours)
    assert sorted(files.leases.iterdir()) == found


@pytest.mark.parametrize("work", [take_another, living_holders])
def test_leases_that_are_a_link_are_left_alone(tmp_path, storage, directory, monkeypatch, work):
    (tmp_path / "outside").mkdir()
    found = oddities(tmp_path / "outside", monkeypatch)
    dead = leave(tmp_path / "outside", A, host_id())
    directory.rmdir()
    directory.symlink_to(tmp_path / "outside")
    with pytest.raises(StorageError, match="a symlink, not followed"):
        work(storage)
    assert sorted((tmp_path / "outside").iterdir()) == sorted([*found, dead])


def test_a_sweep_that_left_no_note_does_not_keep_others_out(tmp_path):
    repository = make_repository(StorageLocation.of(tmp_path))
    (files_of(repository).leases / PRUNER).write_bytes(b"")
    with pytest.raises(LockHeldError):
        take_prune_lease(repository.storage)
    os.utime(files_of(repository).leases / PRUNER, (0, 0))
    take_prune_lease(repository.storage).close()

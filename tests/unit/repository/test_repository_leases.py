"""Leases: the living are told from the dead, on this host and on others."""

import os

import pytest

from virtbackup_async.errors import LockHeldError
from virtbackup_async.repository import leases, sealed_json
from virtbackup_async.repository.leases import EXPIRY_S, living_holders, take_lease


def leave(directory, token, host, age_s=0.0):
    """A lease whose holder does not hold a lock that this kernel knows of."""
    path = directory / token
    path.write_bytes(sealed_json.dumps({"host": host, "pid": 1}))
    now = path.stat().st_mtime - age_s
    os.utime(path, (now, now))
    return path


def test_a_holder_is_seen_until_it_lets_go(tmp_path):
    lease = take_lease(tmp_path, "a")
    assert living_holders(tmp_path) == {"a"}
    lease.check()
    lease.release()
    assert living_holders(tmp_path) == frozenset()
    assert list(tmp_path.iterdir()) == []


def test_a_name_is_held_by_one(tmp_path):
    lease = take_lease(tmp_path, "a")
    with pytest.raises(LockHeldError):
        take_lease(tmp_path, "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    lease.release()


def test_a_dead_holder_of_this_host_is_broken_at_once(tmp_path):
    path = leave(tmp_path, "a", leases._host())
    assert living_holders(tmp_path) == frozenset()
    assert not path.exists()


# The last one was touched before the file system's clock was set back.
@pytest.mark.parametrize(
    ("age_s", "lives"), [(0, True), (EXPIRY_S + 60, False), (-2 * EXPIRY_S, True)]
)
def test_a_holder_elsewhere_lives_as_long_as_it_says_so(tmp_path, age_s, lives):
    path = leave(tmp_path, "a", "another host", age_s)
    assert ("a" in living_holders(tmp_path)) == path.exists() == lives


def test_a_damaged_lease_counts_as_one_of_elsewhere(tmp_path):
    path = leave(tmp_path, "a", "x")
    path.write_bytes(b"?")
    assert living_holders(tmp_path) == {"a"}


def test_who_was_taken_for_dead_is_told(tmp_path):
    lease = take_lease(tmp_path, "a")
    (tmp_path / "a").unlink()
    leave(tmp_path, "a", "somebody else")
    with pytest.raises(LockHeldError, match="broken"):
        lease.check()
    lease.release()
    assert (tmp_path / "a").exists(), "it is somebody else's"


def test_refreshing_is_seen(tmp_path):
    lease = take_lease(tmp_path, "a")
    os.utime(tmp_path / "a", (0, 0))
    lease.refresh()
    assert (tmp_path / "a").stat().st_mtime > 0
    lease.release()

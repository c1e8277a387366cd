"""What holds for tests without a libvirt."""

import pytest


@pytest.fixture(autouse=True)
def locks_of_the_test(tmp_path_factory, monkeypatch):
    """Locks of the test's own: fakes have the same UUIDs in tests that run at the same time."""
    # Not in the test's directory: what is in that, tests look at.
    host = tmp_path_factory.mktemp("host")
    own = host / "locks-of-the-host"
    signs = host / "signs-of-the-host"
    signs.mkdir()
    monkeypatch.setattr("virtbackup_async.host.domain_locks.SYSTEM_DIRECTORY", own)
    monkeypatch.setattr("virtbackup_async.host.signs._DIRECTORY", signs)

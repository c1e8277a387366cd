"""What holds for tests without a libvirt."""

import pytest


@pytest.fixture(autouse=True)
def locks_of_the_test(tmp_path, monkeypatch):
    """Locks of the test's own: fakes have the same UUIDs in tests that run at the same time."""
    monkeypatch.setattr("virtbackup_async.engine.locks._SHARED_DIRECTORY", tmp_path)

"""What holds for tests without a libvirt."""

import re

import pytest

from virtbackup_async import errors


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


RULES = {
    "is one line": lambda text: "\n" not in text,
    "shows no digest": lambda text: not re.search(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])", text),
    "gives room in units": lambda text: not re.search(r"\b[0-9]{7,} bytes (free|needed)", text),
    "says something": lambda text: bool(text.strip()),
}


@pytest.fixture(autouse=True)
def what_errors_say(monkeypatch):
    """Hold every error that a test meets against what a message is to be like."""
    broken = []
    make = errors.VirtBackupError.__init__

    def watched(self, reason, **more):
        make(self, reason, **more)
        # Several problems of a configuration are a line each; all others are one.
        rules = {} if isinstance(self, errors.ConfigError) else RULES
        broken.extend(f"{name}: {reason!r}" for name, rule in rules.items() if not rule(reason))
        if self.hint is not None and not self.hint.endswith((".", "?")):
            broken.append(f"a hint is a sentence: {self.hint!r}")

    monkeypatch.setattr(errors.VirtBackupError, "__init__", watched)
    yield
    assert not broken

"""Fixtures of the tests of repositories."""

import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def memory():
    """A directory in memory: the tests make and remove it some hundred times."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        yield Path(directory)

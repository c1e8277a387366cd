"""The world that faults happen to, once for all tests, and the option to try all of them."""

import tempfile
from pathlib import Path

import pytest

from faults.table import quick_rows, read_rows
from faults.world import open_world
from lab.fixtures import daemon_of_the_run

__all__ = ["daemon_of_the_run"]


def pytest_addoption(parser):
    parser.addoption(
        "--all-points",
        action="store_true",
        help="try every fault of docs/explanation/crash-safety.md, not only one at each step; "
        "die at every change on every storage, and damage each of its files in each way",
    )
    parser.addoption(
        "--walks",
        type=int,
        default=2,
        help="how many random walks, of some twenty seconds each; their seeds are 1, 2, ...",
    )


def pytest_generate_tests(metafunc):
    if "walk_seed" in metafunc.fixturenames:
        walks = metafunc.config.getoption("--walks", default=2)
        metafunc.parametrize("walk_seed", range(1, walks + 1))
    if "row" in metafunc.fixturenames:
        everything = metafunc.config.getoption("--all-points", default=False)
        rows = read_rows() if everything else quick_rows(read_rows())
        metafunc.parametrize("row", rows, ids=lambda row: ": ".join(row[:3]))


@pytest.fixture(scope="module")
def world(daemon_of_the_run):
    daemon_of_the_run.ensure_started()
    with open_world(daemon_of_the_run) as world:
        yield world


@pytest.fixture
def memory():
    """A directory in memory: a repository is made there for each of some hundred deaths."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        yield Path(directory)

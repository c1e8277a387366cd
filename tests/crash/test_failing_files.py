"""Every file operation of every command fails in turn: no backup is lost, nothing is unexpected.

After each fault: the command has ended with one of its exit codes; with 0 only if it has done what
it was asked for; every backup that is listed restores byte for byte; the next backup is whole, and
a clean after it loses nothing. ``faults/file_scenes.py`` has the commands, and
``faults/failing_disk.c`` the operations. Some of the faults are tried in every run, all of them
with ``--all-points``.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from faults.failing_disk import KINDS, build, environment
from faults.file_calls import CALLS
from faults.file_scenes import SCENES

HOWS = ("once", "from")
EVERY = 80
READING = {"verify --quick", "list", "stats"}
TIMEOUT_S = 4 * 3600


def all_walks():
    return [
        (scene, packager, code, how)
        for scene, what in SCENES.items()
        for packager in what.packagers
        for code in KINDS
        for how in HOWS
    ]


def some_walks():
    """Each command with each packager, one of the errors: another one for each."""
    walks = all_walks()
    kinds = len(KINDS) * len(HOWS)
    return [walks[number * kinds + number * 3 % kinds] for number in range(len(walks) // kinds)]


def pytest_generate_tests(metafunc):
    if "file_walk" in metafunc.fixturenames:
        everything = metafunc.config.getoption("--all-points", default=False)
        walks = all_walks() if everything else some_walks()
        metafunc.parametrize("file_walk", walks, ids=": ".join)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return build(tmp_path_factory.mktemp("library"))


@pytest.mark.timeout(TIMEOUT_S)
def test_a_file_operation_that_fails_costs_no_backup(file_walk, library, request):
    scene, packager, code, how = file_walk
    every, first = (
        (1, 0) if request.config.getoption("--all-points") else (EVERY, hash_of(file_walk))
    )
    with tempfile.TemporaryDirectory(dir="/dev/shm") as root:
        walk = [root, scene, packager, code, how, str(every), str(first)]
        ended = subprocess.run(
            [sys.executable, "-m", "faults.file_walk", *walk],
            env=environment(library) | {"PYTHONPATH": "tests/support:."},
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    *broken, counts = map(json.loads, ended.stdout.splitlines())
    assert broken == []
    # Some commands only read: they have no call that needs room, or changes something.
    may_change_nothing = scene in READING and code != "EIO"
    assert counts["met"] or may_change_nothing, f"nothing has failed: {counts}"


def test_each_call_of_this_interpreter_about_a_file_can_fail(library, tmp_path):
    """On every release: one that goes past the library would fail in no walk."""
    ended = subprocess.run(
        [sys.executable, "-m", "faults.file_calls", tmp_path],
        env=environment(library) | {"PYTHONPATH": "tests/support:."},
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert json.loads(ended.stdout) == {name: f"EIO {call.at}" for name, call in CALLS.items()}


def hash_of(walk):
    """Where to begin: at another call for each, the same in every run."""
    return sum(map(ord, "".join(walk))) % 17

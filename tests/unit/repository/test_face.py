"""repository/__init__.py: each name of the face is there, and loads no more than it needs."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from virtbackup_async import repository

SOURCE = Path(repository.__file__)


def typed_names():
    """The names that a type checker sees."""
    (typed,) = (
        node
        for node in ast.parse(SOURCE.read_text()).body
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name)
    )
    return [name.name for node in typed.body for name in node.names]


def test_what_a_type_checker_sees_is_what_there_is():
    assert sorted(typed_names()) == sorted(repository.__all__) == sorted(repository._MODULES)


@pytest.mark.parametrize("name", repository.__all__)
def test_each_name_is_that_of_its_module(name):
    value = getattr(repository, name)
    module = f"virtbackup_async.repository.{repository._MODULES[name]}"
    assert vars(sys.modules[module])[name] is value


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = repository.no_such_name


@pytest.mark.parametrize(
    ("name", "needs_numpy"),
    [
        ("find_repository", False), ("make_repository", False), ("MapFile", False),
        ("open_leased", False), ("ChunkReader", True),
    ],
)  # fmt: skip
def test_numpy_is_loaded_for_the_names_that_need_it_alone(name, needs_numpy):
    program = (
        f"import sys\nfrom virtbackup_async.repository import {name}\nprint('numpy' in sys.modules)"
    )
    assert output_of(program) == f"{needs_numpy}\n"


def test_only_the_command_changes_the_environment():
    library = "import os, virtbackup_async.repository as r; r.ChunkReader"
    command = "import os, virtbackup_async.cli.main as m; m.main = lambda: print({0}, flush=True)"
    command += "; m.run_and_end()"
    asked = "os.environ.get('OPENBLAS_NUM_THREADS')"
    assert output_of(f"{library}; print({asked})") == "None\n"
    assert output_of(command.format(asked)) == "1\n"


def output_of(program):
    environment = {name: value for name, value in os.environ.items() if "OPENBLAS" not in name}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    )
    return done.stdout

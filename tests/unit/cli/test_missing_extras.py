"""A package that is not installed is one line that says how to install it here."""

import subprocess
import sys

import pytest

from virtbackup_async.errors import install_hint
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository import make_repository

HIDE = """
import sys
from importlib.abc import MetaPathFinder

class Hidden(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {packages!r}:
            raise ModuleNotFoundError(name=name)

sys.meta_path.insert(0, Hidden())
from virtbackup_async.cli.main import run_and_end
run_and_end()
"""


@pytest.mark.parametrize(
    ("packages", "words", "exit_code"),
    [
        (("obstore",), ("--target", "s3://bucket/prefix"), 22),
        (("cryptography", "segno"), ("--target", "TARGET", "--key-file", "KEY"), 2),
    ],
)
def test_a_missing_extra_is_named_with_the_command_that_installs_it(
    tmp_path, packages, words, exit_code
):
    target, key = tmp_path / "target", tmp_path / "key"
    target.mkdir()
    make_repository(StorageLocation("file", str(target), key_file=key))
    words = [word.replace("TARGET", str(target)).replace("KEY", str(key)) for word in words]
    ended = subprocess.run(
        [sys.executable, "-c", HIDE.format(packages=packages), "list", *words],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == exit_code, ended.stderr
    assert install_hint(" ".join(packages)) in ended.stderr
    assert len(ended.stderr.splitlines()) == 1

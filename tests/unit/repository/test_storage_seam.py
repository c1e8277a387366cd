"""Only storage/local*.py and key_file.py touch files, and this_host.py asks who we are."""

import ast
from pathlib import Path

import pytest

from virtbackup_async import repository

ROOT = Path(repository.__file__).parent
TOUCHING = {
    "storage/local.py", "storage/local_files.py", "storage/this_host.py",
    # Of the host, not of the target: unnamed files for what is to be sent, the AWS files and their
    # like in the environment, the keys, copies of what is looked up often.
    "storage/objects/files.py", "storage/objects/cache.py", "storage/objects/credentials.py",
    "storage/objects/connecting.py",
    "storage/key_file.py", "storage/public_file.py", "storage/objects/opened_locks.py",
    "storage/served/copied.py",
    # The server's side of a directory that is served over ssh, and its errors and channel.
    "storage/served/channel.py", "storage/served/failures.py", "storage/served/quota.py",
    "storage/served/serving.py",
}  # fmt: skip
# How errors of a storage are said, without a call of the operating system.
ERRORS_ONLY = {"virtbackup_async.files.refusals"}
FORBIDDEN_MODULES = ("os", "fcntl", "shutil", "tempfile", "mmap", "pathlib", "aiofiles",
                     "virtbackup_async.files")  # fmt: skip
PATHS_ARE_NAMED = {
    "storage/repository_file.py", "storage/encrypted.py", "storage/key_changes.py",
    "storage/opened.py", "storage/key.py", "storage/key_access.py",
}  # fmt: skip
MODULES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))


def touches_files(source, allowed=frozenset()):
    """What in a module could touch files."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                modules = [name.name for name in names]
            case ast.ImportFrom(module=module, names=names):
                modules = [f"{module}.{name.name}" for name in names]
                if module in ERRORS_ONLY or all(name.name.endswith("Error") for name in names):
                    continue
            case ast.Call(func=ast.Name(id="open")):
                modules = ["os"]
            case _:
                continue
        for module in modules:
            for name in set(FORBIDDEN_MODULES) - allowed:
                if module == name or module.startswith(f"{name}."):
                    yield module


@pytest.mark.parametrize("module", [name for name in MODULES if name not in TOUCHING])
def test_no_other_module_touches_files(module):
    # A target is a path until it is a storage.
    allowed = {"pathlib"} if module in PATHS_ARE_NAMED else set()
    assert list(touches_files((ROOT / module).read_text(), allowed)) == []


@pytest.mark.parametrize(
    "source",
    ["import os", "from os import path", "open('x')", "from pathlib import Path",
     "from virtbackup_async.files.target_path import TargetPath"],
)  # fmt: skip
def test_what_touches_files_is_seen(source):
    assert list(touches_files(source))


def test_the_modules_that_do_are_there():
    assert set(MODULES) >= TOUCHING | PATHS_ARE_NAMED

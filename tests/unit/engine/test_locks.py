import math
import os
import subprocess
import sys

import anyio
import pytest

from virtbackup_async.engine.locks import Patience, hold_domain, hold_package
from virtbackup_async.errors import LockHeldError, StorageError

UUID = "00000000-0000-4000-8000-000000000000"


async def test_the_same_domain_is_held_once(tmp_path):
    async with hold_domain(tmp_path, "web", UUID, "backup"):
        with pytest.raises(LockHeldError, match=rf"web: process {os.getpid()} \(backup\)"):
            async with hold_domain(tmp_path, "web", UUID, "clean"):
                pass
    async with hold_domain(tmp_path, "web", UUID, "clean"):
        pass


async def test_other_domains_are_free(tmp_path):
    other = UUID[:-1] + "1"
    first = hold_domain(tmp_path, "a", UUID, "backup")
    async with first, hold_domain(tmp_path, "b", other, "backup"):
        pass


async def test_a_dead_holder_blocks_nobody(tmp_path):
    program = (
        "import fcntl, os, sys\n"
        "fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\n"
        "fcntl.flock(fd, fcntl.LOCK_EX)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    path = tmp_path / f"virtbackup-{UUID}.lock"
    process = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert process.returncode == -9
    async with hold_domain(tmp_path, "web", UUID, "backup"):
        pass


async def test_a_symlink_is_not_followed(tmp_path):
    (tmp_path / "victim").write_text("keep me")
    (tmp_path / f"virtbackup-{UUID}.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(StorageError):
        async with hold_domain(tmp_path, "web", UUID, "backup"):
            pass
    assert (tmp_path / "victim").read_text() == "keep me"


async def test_a_lock_file_with_anything_in_it_is_taken(tmp_path):
    (tmp_path / f"virtbackup-{UUID}.lock").write_bytes(b"\xff{not json" * 1000)
    async with hold_domain(tmp_path, "web", UUID, "backup"):
        with pytest.raises(LockHeldError):
            async with hold_domain(tmp_path, "web", UUID, "backup"):
                pass


async def test_patience_that_ends_says_who_holds_the_lock(tmp_path):
    told = []
    async with hold_domain(tmp_path, "web", UUID, "backup"):
        with pytest.raises(LockHeldError, match="backup"):
            async with hold_domain(tmp_path, "web", UUID, "clean", Patience(0.01, told.append)):
                pass
    assert told == [f"web: process {os.getpid()} (backup) works on this domain"]


async def test_waiting_can_be_cancelled(tmp_path):
    async with hold_domain(tmp_path, "web", UUID, "backup"):
        with anyio.CancelScope() as scope:
            patience = Patience(math.inf, lambda _message: scope.cancel())
            async with hold_domain(tmp_path, "web", UUID, "clean", patience):
                pass
        assert scope.cancelled_caught


async def test_many_may_read_a_package_and_none_while_it_is_removed(tmp_path):
    package = tmp_path / "b.tar"
    package.touch()
    paths = [tmp_path / "missing", package]
    first, second = (hold_package(paths, exclusive=False) for _ in range(2))
    async with first, second:
        with pytest.raises(LockHeldError, match=r"reads or removes .*b\.tar"):
            async with hold_package(paths, exclusive=True):
                pass
    async with hold_package(paths, exclusive=True):
        with pytest.raises(LockHeldError, match="removes"):
            async with hold_package(paths, exclusive=False):
                pass


async def test_a_package_without_files_needs_no_lock(tmp_path):
    async with hold_package([tmp_path / "missing"], exclusive=True):
        pass

import os
import subprocess
import sys

import pytest

from virtbackup_async.engine.locks import hold_domain
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

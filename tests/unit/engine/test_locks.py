import math
import os
import re

import anyio
import pytest

from virtbackup_async.engine.locks import LockWait, hold_domain, hold_package
from virtbackup_async.errors import LockHeldError
from virtbackup_async.host.local import LocalHost
from virtbackup_async.model.target_file import TargetFile

UUID = "00000000-0000-4000-8000-000000000000"


async def test_the_same_domain_is_held_once(tmp_path):
    async with hold_domain(LocalHost(tmp_path), "web", UUID, "backup"):
        with pytest.raises(
            LockHeldError, match=rf"web: process {os.getpid()} \(backup, since [0-9: -]+\) works"
        ):
            async with hold_domain(LocalHost(tmp_path), "web", UUID, "clean"):
                pass
    async with hold_domain(LocalHost(tmp_path), "web", UUID, "clean"):
        pass


async def test_other_domains_are_free(tmp_path):
    other = UUID[:-1] + "1"
    first = hold_domain(LocalHost(tmp_path), "a", UUID, "backup")
    async with first, hold_domain(LocalHost(tmp_path), "b", other, "backup"):
        pass


async def test_patience_that_ends_says_who_holds_the_lock(tmp_path):
    told = []
    async with hold_domain(LocalHost(tmp_path), "web", UUID, "backup"):
        with pytest.raises(LockHeldError, match="backup"):
            async with hold_domain(
                LocalHost(tmp_path), "web", UUID, "clean", LockWait(0.01, told.append)
            ):
                pass
    (line,) = told
    since = r"since [0-9-]{10} [0-9:]{5}"
    assert re.fullmatch(
        rf"web: process {os.getpid()} \(backup, {since}\) works on this domain", line
    )


async def test_waiting_can_be_cancelled(tmp_path):
    async with hold_domain(LocalHost(tmp_path), "web", UUID, "backup"):
        with anyio.CancelScope() as scope:
            patience = LockWait(math.inf, lambda _message: scope.cancel())
            async with hold_domain(LocalHost(tmp_path), "web", UUID, "clean", patience):
                pass
        assert scope.cancelled_caught


async def test_many_may_read_a_package_and_none_while_it_is_removed(tmp_path):
    package = tmp_path / "b.tar"
    package.touch()
    files = [TargetFile.of(tmp_path / "missing"), TargetFile.of(package)]
    first, second = (hold_package(files, exclusive=False) for _ in range(2))
    async with first, second:
        with pytest.raises(LockHeldError, match=r"reads or removes .*b\.tar"):
            async with hold_package(files, exclusive=True):
                pass
    async with hold_package(files, exclusive=True):
        with pytest.raises(LockHeldError, match="removes"):
            async with hold_package(files, exclusive=False):
                pass


async def test_a_package_without_files_needs_no_lock(tmp_path):
    async with hold_package([TargetFile.of(tmp_path / "missing")], exclusive=True):
        pass

import contextlib
import math
import os
import stat
import subprocess
import sys

import anyio
import pytest

from virtbackup_async.engine import locks, signs
from virtbackup_async.engine.locks import (
    LockWait,
    hold_domain,
    hold_package,
    is_held,
    lock_directory,
)
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


def hard_link(path):
    victim = path.with_name("victim")
    victim.write_text("keep me")
    path.hardlink_to(victim)


def pipe(path):
    os.mkfifo(path)


def directory(path):
    path.mkdir()


@pytest.mark.parametrize("plant", [hard_link, pipe, directory])
async def test_only_a_file_of_our_own_with_one_name_is_locked(tmp_path, plant):
    path = tmp_path / f"virtbackup-{UUID}.lock"
    plant(path)
    with pytest.raises(StorageError, match=r"cannot (lock|open)"):
        async with hold_domain(tmp_path, "web", UUID, "backup"):
            pass
    if plant is hard_link:
        assert path.read_text() == "keep me"


async def test_another_users_file_is_not_locked(tmp_path, monkeypatch):
    async with hold_domain(tmp_path, "web", UUID, "backup"):
        pass
    real = os.fstat

    def of_another(fd):
        status = real(fd)
        if not stat.S_ISREG(status.st_mode):
            return status
        return os.stat_result([*status[:4], status.st_uid + 1, *status[5:10]])

    monkeypatch.setattr(os, "fstat", of_another)
    with pytest.raises(StorageError, match="cannot lock"):
        async with hold_domain(tmp_path, "web", UUID, "backup"):
            pass


@pytest.mark.parametrize("times", [1, 100])
async def test_a_file_that_is_exchanged_is_locked_anew(tmp_path, monkeypatch, times):
    """Who locks a file that has not its name any more would lock nobody out."""
    path, left = tmp_path / f"virtbackup-{UUID}.lock", times
    real = locks.fcntl.flock

    def exchange(fd, how):
        nonlocal left
        real(fd, how)
        if left:
            left -= 1
            path.rename(tmp_path / "moved away")
            path.touch(mode=0o600)

    monkeypatch.setattr(locks.fcntl, "flock", exchange)
    if times > 1:
        with pytest.raises(StorageError, match="exchanged"):
            async with hold_domain(tmp_path, "web", UUID, "backup"):
                pass
        return
    async with hold_domain(tmp_path, "web", UUID, "backup"):
        with pytest.raises(LockHeldError, match="backup"):
            async with hold_domain(tmp_path, "web", UUID, "clean"):
                pass


async def test_a_directory_that_others_may_write_to_has_no_locks(tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(StorageError, match="written to by others"):
        async with hold_domain(tmp_path / "open", "web", UUID, "backup"):
            pass


HOLDER = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o666)
fcntl.flock(fd, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def sign():
    return signs._path(UUID)


@pytest.fixture
def neighbour(sign):
    """A process that has a sign up for the domain; as an older program, or another user, has."""
    command = [sys.executable, "-c", HOLDER, str(sign)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process.pid
        process.stdin.close()


@pytest.fixture
def own(tmp_path):
    return lock_directory(tmp_path / "own")


async def test_root_heeds_signs_of_root(neighbour, monkeypatch, own):
    """Before, they were the locks: nothing is done twice while programs are exchanged."""
    assert is_held(own, UUID) or os.geteuid() == 0
    monkeypatch.setattr(signs, "_owner", lambda _pid: 0)
    with pytest.raises(LockHeldError, match=f"web: process {neighbour} works on this domain"):
        async with hold_domain(own, "web", UUID, "backup"):
            pass
    assert is_held(own, UUID)


async def test_root_is_not_kept_by_another_users_sign(neighbour, monkeypatch, own):
    monkeypatch.setattr(signs, "heeded", lambda _pids: frozenset())
    async with hold_domain(own, "web", UUID, "backup") as is_alone:
        assert not is_alone
    assert not is_held(own, UUID)


@pytest.mark.parametrize(("uid", "heeds"), [(0, False), (1000, True)])
def test_who_heeds_whose_signs(monkeypatch, uid, heeds):
    monkeypatch.setattr(signs.os, "geteuid", lambda: uid)
    monkeypatch.setattr(signs, "_owner", {7: 0, 8: 1000, 9: None}.get)
    assert signs.heeded(frozenset({7, 8, 9})) == ({7, 8, 9} if heeds else {7})


async def test_a_sign_is_put_up_and_taken_down(sign, own):
    async with hold_domain(own, "web", UUID, "backup") as is_alone:
        assert is_alone
        assert signs.holders(sign) == {os.getpid()}
    assert signs.holders(sign) == frozenset()
    assert sign.read_bytes() == b""


@pytest.mark.parametrize("plant", [hard_link, pipe, directory])
async def test_what_is_planted_as_a_sign_is_not_written_to(sign, plant, own):
    plant(sign)
    with contextlib.suppress(StorageError):  # root does without, others do not
        async with hold_domain(own, "web", UUID, "backup"):
            pass
    if plant is hard_link:
        assert sign.read_text() == "keep me"


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
            async with hold_domain(tmp_path, "web", UUID, "clean", LockWait(0.01, told.append)):
                pass
    assert told == [f"web: process {os.getpid()} (backup) works on this domain"]


async def test_waiting_can_be_cancelled(tmp_path):
    async with hold_domain(tmp_path, "web", UUID, "backup"):
        with anyio.CancelScope() as scope:
            patience = LockWait(math.inf, lambda _message: scope.cancel())
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

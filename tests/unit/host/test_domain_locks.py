import contextlib
import os
import stat
import subprocess
import sys

import pytest

from virtbackup_async.errors import LockHeldError, StorageError
from virtbackup_async.host import domain_locks, signs
from virtbackup_async.host.domain_locks import acquire, holder, is_held, lock_directory
from virtbackup_async.model.lock_holder import LockHolder

UUID = "00000000-0000-4000-8000-000000000000"


@contextlib.contextmanager
def locked(directory, doing):
    lock = acquire(directory, "web", UUID, doing)
    try:
        yield lock
    finally:
        lock.release()


def test_a_dead_holder_blocks_nobody(tmp_path):
    program = (
        "import fcntl, os, sys\n"
        "fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\n"
        "fcntl.flock(fd, fcntl.LOCK_EX)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    path = tmp_path / f"virtbackup-{UUID}.lock"
    process = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert process.returncode == -9
    with locked(tmp_path, "backup"):
        pass


def test_a_symlink_is_not_followed(tmp_path):
    (tmp_path / "victim").write_text("keep me")
    (tmp_path / f"virtbackup-{UUID}.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(StorageError), locked(tmp_path, "backup"):
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
def test_only_a_file_of_our_own_with_one_name_is_locked(tmp_path, plant):
    path = tmp_path / f"virtbackup-{UUID}.lock"
    plant(path)
    with pytest.raises(StorageError, match=r"cannot (lock|open)"), locked(tmp_path, "backup"):
        pass
    if plant is hard_link:
        assert path.read_text() == "keep me"


def test_another_users_file_is_not_locked(tmp_path, monkeypatch):
    with locked(tmp_path, "backup"):
        pass
    real = os.fstat

    def of_another(fd):
        status = real(fd)
        if not stat.S_ISREG(status.st_mode):
            return status
        return os.stat_result([*status[:4], status.st_uid + 1, *status[5:10]])

    monkeypatch.setattr(os, "fstat", of_another)
    with pytest.raises(StorageError, match="cannot lock"), locked(tmp_path, "backup"):
        pass


@pytest.mark.parametrize("times", [1, 100])
def test_a_file_that_is_exchanged_is_locked_anew(tmp_path, monkeypatch, times):
    """Who locks a file that has not its name any more would lock nobody out."""
    path, left = tmp_path / f"virtbackup-{UUID}.lock", times
    real = domain_locks.fcntl.flock

    def exchange(fd, how):
        nonlocal left
        real(fd, how)
        if left:
            left -= 1
            path.rename(tmp_path / "moved away")
            path.touch(mode=0o600)

    monkeypatch.setattr(domain_locks.fcntl, "flock", exchange)
    if times > 1:
        with pytest.raises(StorageError, match="exchanged"), locked(tmp_path, "backup"):
            pass
        return
    with locked(tmp_path, "backup"), pytest.raises(LockHeldError, match="backup"):
        acquire(tmp_path, "web", UUID, "clean")


def test_a_directory_that_others_may_write_to_has_no_locks(tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(StorageError, match="written to by others"):
        acquire(tmp_path / "open", "web", UUID, "backup")


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


def test_root_heeds_signs_of_root(neighbour, monkeypatch, own):
    """Before, they were the locks: nothing is done twice while programs are exchanged."""
    assert is_held(own, UUID) or os.geteuid() == 0
    monkeypatch.setattr(signs, "_owner", lambda _pid: 0)
    with pytest.raises(LockHeldError, match=f"web: process {neighbour} works on this domain"):
        acquire(own, "web", UUID, "backup")
    assert is_held(own, UUID)


def test_root_is_not_kept_by_another_users_sign(neighbour, monkeypatch, own):
    monkeypatch.setattr(signs, "heeded", lambda _pids: frozenset())
    with locked(own, "backup") as lock:
        assert not lock.is_alone
    assert not is_held(own, UUID)


@pytest.mark.parametrize(("uid", "heeds"), [(0, False), (1000, True)])
def test_who_heeds_whose_signs(monkeypatch, uid, heeds):
    monkeypatch.setattr(signs.os, "geteuid", lambda: uid)
    monkeypatch.setattr(signs, "_owner", {7: 0, 8: 1000, 9: None}.get)
    assert signs.heeded(frozenset({7, 8, 9})) == ({7, 8, 9} if heeds else {7})


def test_a_sign_is_put_up_and_taken_down(sign, own):
    with locked(own, "backup") as lock:
        assert lock.is_alone
        assert signs.holders(sign) == {os.getpid()}
    assert signs.holders(sign) == frozenset()
    assert sign.read_bytes() == b""


@pytest.mark.parametrize("plant", [hard_link, pipe, directory])
def test_anything_planted_as_a_sign_is_not_written_to(sign, plant, own):
    plant(sign)
    with (
        contextlib.suppress(StorageError),
        locked(own, "backup"),
    ):  # root does without, others do not
        pass
    if plant is hard_link:
        assert sign.read_text() == "keep me"


def test_a_lock_file_with_anything_in_it_is_taken(tmp_path):
    (tmp_path / f"virtbackup-{UUID}.lock").write_bytes(b"\xff{not json" * 1000)
    with locked(tmp_path, "backup"), pytest.raises(LockHeldError), locked(tmp_path, "backup"):
        pass


def test_the_holder_is_said_with_what_it_does_and_since_when(tmp_path):
    path = tmp_path / f"virtbackup-{UUID}.lock"
    with locked(tmp_path, "backup of group main"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
        found = holder(tmp_path, UUID)
    assert found == LockHolder(os.getpid(), "backup of group main", 1_700_000_000)
    assert holder(tmp_path, UUID) is None


NOTES = [
    b"", b"{", b"[]", b"{}", b"\xff", b'{"pid": "x", "doing": "clean"}', b'{"pid": 1}',
    b'{"pid": 1e999, "doing": "clean"}', b'{"pid": 1, "doing": "the one before"}', b"[" * 4096,
]  # fmt: skip


@pytest.mark.parametrize("note", NOTES)
def test_a_note_that_is_not_the_holders_is_not_believed(tmp_path, note):
    path = tmp_path / f"virtbackup-{UUID}.lock"
    path.write_bytes(note)
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        assert holder(tmp_path, UUID) == LockHolder(process.pid)
        with pytest.raises(LockHeldError):
            acquire(tmp_path, "web", UUID, "backup")
        process.stdin.close()


def test_a_long_purpose_is_cut(tmp_path):
    with locked(tmp_path, "x" * 1000):
        assert holder(tmp_path, UUID).doing == "x" * 80


def test_the_holder_of_a_sign_has_no_note(neighbour, monkeypatch, own):
    monkeypatch.setattr(signs, "heeded", lambda pids: pids)
    assert holder(own, UUID) == LockHolder(neighbour)

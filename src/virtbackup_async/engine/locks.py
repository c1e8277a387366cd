"""Locks: one worker at a time for a domain, and one remover for a package.

The lock on a domain is ``flock`` on a file named after the domain's UUID, in a directory that
belongs to the user: ``/run/virtbackup`` for root. Other users can neither hold the lock nor replace
the file. Once it is locked, a check confirms that it still has its name. ``signs`` informs other
users.

The kernel releases a lock with its process, so a dead holder blocks nobody. The file is never
removed, because two processes could then lock two files of one name. Its content is only for
messages. The lock on a package is ``flock`` on the first of its files.
"""

import errno
import fcntl
import json
import os
import stat
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from anyio import current_time, sleep, to_thread
from msgspec import Struct

from virtbackup_async.engine import signs
from virtbackup_async.errors import LockHeldError, StorageError
from virtbackup_async.files import lacks
from virtbackup_async.files.closing import close
from virtbackup_async.files.directories import make_private
from virtbackup_async.files.target_path import TargetPath

T = TypeVar("T")

_SYSTEM_DIRECTORY = Path("/run/virtbackup")
_MODE = 0o600
_MAX_TRIES = 5
_MAX_NOTE_BYTES = 4096
_LOCK_HINT = "Wait for it, with --wait, or stop it."
POLL_INTERVAL_S = 0.5


def lock_directory(state_directory: Path) -> Path:
    """Return ``/run/virtbackup``; for users that are not root, one in their state directory."""
    return _SYSTEM_DIRECTORY if os.geteuid() == 0 else state_directory / "locks"


class LockWait(Struct, frozen=True):
    """How long to wait for a lock that another process holds.

    Attributes:
        wait_s: in seconds; 0 not to wait, infinity to wait for ever.
        on_wait: called once, with a message about the holder.
    """

    wait_s: float = 0
    on_wait: Callable[[str], None] = lambda _message: None


NO_WAIT = LockWait()


@asynccontextmanager
async def hold_domain(
    directory: Path, domain: str, uuid: str, doing: str, lock_wait: LockWait = NO_WAIT
) -> AsyncGenerator[bool]:
    """Lock a domain; yield whether it is known that no other user works on it either.

    Args:
        directory: the directory of the lock files, see :func:`lock_directory`.
        domain: the domain's name, for messages.
        uuid: the domain's UUID, which names the lock.
        doing: the purpose, for the messages of other processes.
        lock_wait: how long to wait for the lock.

    Raises:
        LockHeldError: another process works on the domain.
        StorageError: the lock file cannot be created.
    """
    held = await _acquired(partial(_acquire, directory, uuid, domain, doing), lock_wait)
    try:
        yield held.is_alone
    finally:
        # Closing releases the lock. It does not wait for a disk: the file is never synced.
        for descriptor in held.descriptors:
            close(descriptor)


@asynccontextmanager
async def hold_package(
    paths: Sequence[Path], *, exclusive: bool, lock_wait: LockWait = NO_WAIT
) -> AsyncGenerator[None]:
    """Lock a package: shared, so that nobody removes it, or exclusively, to remove it.

    The lock is on the first of its files that exists. A pin, or the result of ``verify``, does not
    touch these files and never waits.

    Raises:
        LockHeldError: another process reads the package, or removes it.
    """
    descriptor = await _acquired(partial(_acquire_package, tuple(paths), exclusive), lock_wait)
    try:
        yield
    finally:
        if descriptor is not None:
            close(descriptor)


async def _acquired(acquire: Callable[[], T], lock_wait: LockWait) -> T:
    """Try again and again: a thread that waits for ``flock`` could not be cancelled."""
    deadline = current_time() + lock_wait.wait_s
    has_told = False
    while True:
        try:
            return await to_thread.run_sync(acquire)
        except LockHeldError as error:
            if lock_wait.wait_s > 0 and not has_told:
                lock_wait.on_wait(error.message)
                has_told = True
            if current_time() >= deadline:
                raise
        await sleep(min(POLL_INTERVAL_S, max(0, deadline - current_time())))


def _acquire_package(paths: Sequence[Path], exclusive: bool) -> int | None:  # noqa: FBT001 -- for a thread
    # NFS wants a file that is to be locked exclusively to be open for writing.
    flags = os.O_RDWR if exclusive else os.O_RDONLY
    for path in paths:
        try:
            descriptor = TargetPath.in_domain(path).open_file(flags)
        except OSError:
            continue  # missing, or unreadable, which its reader reports
        how = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
        if not lacks.lock(descriptor, how, path.parent.parent):
            close(descriptor)
            doing = "reads or removes" if exclusive else "removes"
            raise LockHeldError(f"another process {doing} {path}", hint=_LOCK_HINT)
        return descriptor
    return None


def is_held(directory: Path, uuid: str) -> bool:
    """Tell whether any process works on a domain, without touching its lock. Blocks."""
    if signs.holders(_lock_path(directory, uuid)):
        return True
    return bool(signs.others_at_work(uuid))


def _lock_path(directory: Path, uuid: str) -> Path:
    return directory / f"virtbackup-{uuid}.lock"


class _HeldDomain(Struct, frozen=True):
    descriptors: tuple[int, ...]
    is_alone: bool


def _acquire(directory: Path, uuid: str, domain: str, doing: str) -> _HeldDomain:
    make_private(directory)
    lock = _lock(_lock_path(directory, uuid), domain, doing)
    try:
        sign = _put_up_sign(uuid, domain)
    except BaseException:
        close(lock)
        raise
    if sign.descriptor is None:
        return _HeldDomain((lock,), is_alone=not sign.others)
    return _HeldDomain((lock, sign.descriptor), is_alone=True)


def _put_up_sign(uuid: str, domain: str) -> signs.Sign:
    sign = signs.put_up(uuid)
    heeded = signs.heeded(sign.others)
    if heeded:
        holder = ", ".join(map(str, sorted(heeded)))
        raise LockHeldError(
            f"process {holder} works on this domain", domain=domain, hint=_LOCK_HINT
        )
    return sign


def _lock(path: Path, domain: str, doing: str) -> int:
    for _ in range(_MAX_TRIES):
        descriptor = _open(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_the_file_there(descriptor, path):
                note = json.dumps({"pid": os.getpid(), "doing": doing}).encode()
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, note, 0)
                return descriptor
            close(descriptor)
        except BlockingIOError as error:
            holder = _holder(descriptor)
            close(descriptor)
            raise LockHeldError(
                f"{holder} works on this domain", domain=domain, hint=_LOCK_HINT
            ) from error
        except OSError as error:
            close(descriptor)
            raise StorageError(f"cannot lock {path}: {error.strerror}") from error
    raise StorageError(f"cannot lock {path}: it is exchanged for another file all the time")


def _is_the_file_there(descriptor: int, path: Path) -> bool:
    """Tell whether a locked file still has its name, and belongs to this user.

    Raises:
        OSError: it never will, so there is no use in trying again.
    """
    locked = os.fstat(descriptor)
    if not stat.S_ISREG(locked.st_mode) or locked.st_uid != os.geteuid() or locked.st_nlink > 1:
        raise PermissionError(errno.EPERM, "not a file of our own with one name")
    try:
        return os.path.samestat(locked, path.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False


def _open(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, flags, _MODE)
    except OSError as error:
        raise StorageError(f"cannot open the lock {path}: {error.strerror}") from error


def _holder(descriptor: int) -> str:
    try:
        note = json.loads(os.pread(descriptor, _MAX_NOTE_BYTES, 0))
        return f"process {int(note['pid'])} ({str(note['doing'])[:80]})"
    except (ValueError, KeyError, TypeError):
        return "another process"

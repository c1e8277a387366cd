"""One worker for a domain at a time, over groups, tasks, processes and users; and one remover.

The lock on a domain is ``flock`` on a file named after the domain's UUID, in a directory that every
user of the host shares. The kernel drops it with its process, so a dead holder blocks nobody. The
file stays: removing it would let two processes lock two files of one name. What it holds is for
messages only. The lock on a package is ``flock`` on its own file.
"""

import fcntl
import json
import os
import tempfile
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from anyio import current_time, sleep, to_thread
from msgspec import Struct

from virtbackup_async.errors import LockHeldError, StorageError
from virtbackup_async.files.closing import close
from virtbackup_async.files.target_path import TargetPath

T = TypeVar("T")

_SHARED_DIRECTORY = Path("/run/lock")
_KERNEL_LOCKS = Path("/proc/locks")
_MODE = 0o666
_MAX_NOTE_BYTES = 4096
_LOCK_HINT = "Wait for it, with --wait, or stop it."
POLL_INTERVAL_S = 0.5


def default_lock_directory() -> Path:
    """Return ``/run/lock``, or the temporary directory where that cannot be written to."""
    if os.access(_SHARED_DIRECTORY, os.W_OK):
        return _SHARED_DIRECTORY
    return Path(tempfile.gettempdir())


class Patience(Struct, frozen=True):
    """How long to wait for a lock that somebody else holds.

    Attributes:
        wait_s: 0 not to wait, infinity to wait for ever.
        on_wait: told once what is waited for.
    """

    wait_s: float = 0
    on_wait: Callable[[str], None] = lambda _message: None


NO_PATIENCE = Patience()


@asynccontextmanager
async def hold_domain(
    directory: Path, domain: str, uuid: str, doing: str, patience: Patience = NO_PATIENCE
) -> AsyncGenerator[None]:
    """Be the only one that works on a domain.

    Args:
        directory: where the lock files lie, the same for everybody.
        domain: its name, for messages.
        uuid: what the lock is on.
        doing: what for, shown to whoever finds the lock taken.
        patience: whether to wait for it.

    Raises:
        LockHeldError: somebody else works on the domain.
        StorageError: the lock file cannot be made.
    """
    path = _lock_path(directory, uuid)
    descriptor = await _acquired(partial(_acquire, path, domain, doing), patience)
    try:
        yield
    finally:
        # Closing drops the lock. It does not wait for a disk: the file is never synced.
        close(descriptor)


@asynccontextmanager
async def hold_package(
    paths: Sequence[Path], *, exclusive: bool, patience: Patience = NO_PATIENCE
) -> AsyncGenerator[None]:
    """Keep a backup's package from being removed while it is read, or be the one that removes it.

    The lock is on the first of its files that is there. Many may read at a time; a pin, or what
    ``verify`` notes, does not touch those files and does not wait for anybody.

    Raises:
        LockHeldError: somebody reads the package, or removes it.
    """
    descriptor = await _acquired(partial(_acquire_package, tuple(paths), exclusive), patience)
    try:
        yield
    finally:
        if descriptor is not None:
            close(descriptor)


async def _acquired(acquire: Callable[[], T], patience: Patience) -> T:
    """Try until it works or patience ends: a thread that waits for flock cannot be cancelled."""
    deadline = current_time() + patience.wait_s
    has_told = False
    while True:
        try:
            return await to_thread.run_sync(acquire)
        except LockHeldError as error:
            if current_time() >= deadline:
                raise
            if not has_told:
                patience.on_wait(error.message)
                has_told = True
        await sleep(min(POLL_INTERVAL_S, max(0, deadline - current_time())))


def _acquire_package(paths: Sequence[Path], exclusive: bool) -> int | None:  # noqa: FBT001 -- for a thread
    # NFS wants a file that is to be locked exclusively to be open for writing.
    flags = os.O_RDWR if exclusive else os.O_RDONLY
    for path in paths:
        try:
            descriptor = TargetPath.in_domain(path).open_file(flags)
        except OSError:
            continue  # missing, or nothing that can be read: its reader will tell
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            close(descriptor)
            doing = "reads or removes" if exclusive else "removes"
            raise LockHeldError(f"another process {doing} {path}", hint=_LOCK_HINT) from error
        except OSError:
            pass  # a file system without locks
        return descriptor
    return None


def is_held(directory: Path, uuid: str) -> bool:
    """Tell whether somebody works on a domain, without touching its lock. Blocks.

    A try to take the lock could be the very moment in which a backup wants it. The kernel lists
    the locks that it holds: ``1: FLOCK  ADVISORY  WRITE 812 00:1a:4711 0 EOF``.
    """
    try:
        status = _lock_path(directory, uuid).stat()
        locks = _KERNEL_LOCKS.read_text()
    except OSError:
        return False
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    fields = [line.split() for line in locks.splitlines()]
    return any("FLOCK" in line and f"{device}:{status.st_ino}" in line for line in fields)


def _lock_path(directory: Path, uuid: str) -> Path:
    return directory / f"virtbackup-{uuid}.lock"


def _acquire(path: Path, domain: str, doing: str) -> int:
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        note = json.dumps({"pid": os.getpid(), "doing": doing}).encode()
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, note, 0)
    except BlockingIOError as error:
        holder = _holder(descriptor)
        close(descriptor)
        raise LockHeldError(f"{domain}: {holder} works on this domain", hint=_LOCK_HINT) from error
    except OSError as error:
        close(descriptor)
        raise StorageError(f"cannot lock {path}: {error.strerror}") from error
    return descriptor


def _open(path: Path) -> int:
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        # First without O_CREAT: in a sticky directory the kernel refuses to "create" a file that
        # exists and belongs to somebody else, even for root (fs.protected_regular).
        return os.open(path, flags)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise StorageError(f"cannot open the lock {path}: {error.strerror}") from error
    try:
        descriptor = os.open(path, flags | os.O_CREAT, _MODE)
        os.fchmod(descriptor, _MODE)
    except OSError as error:
        raise StorageError(f"cannot make the lock {path}: {error.strerror}") from error
    return descriptor


def _holder(descriptor: int) -> str:
    try:
        note = json.loads(os.pread(descriptor, _MAX_NOTE_BYTES, 0))
        return f"process {int(note['pid'])} ({str(note['doing'])[:80]})"
    except (ValueError, KeyError, TypeError):
        return "another process"

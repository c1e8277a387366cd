"""One worker for a domain at a time: over groups, tasks, processes and users.

A lock is ``flock`` on a file named after the domain's UUID, in a directory that every user of the
host shares. The kernel drops it with its process, so a dead holder blocks nobody. The file stays:
removing it would let two processes lock two files of one name. What it holds is for messages only.
"""

import fcntl
import json
import os
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from anyio import to_thread

from virtbackup_async.errors import LockHeldError, StorageError

_SHARED_DIRECTORY = Path("/run/lock")
_MODE = 0o666
_MAX_NOTE_BYTES = 4096


def default_lock_directory() -> Path:
    """Return ``/run/lock``, or the temporary directory where that cannot be written to."""
    if os.access(_SHARED_DIRECTORY, os.W_OK):
        return _SHARED_DIRECTORY
    return Path(tempfile.gettempdir())


@asynccontextmanager
async def hold_domain(directory: Path, domain: str, uuid: str, doing: str) -> AsyncGenerator[None]:
    """Be the only one that works on a domain.

    Args:
        directory: where the lock files lie, the same for everybody.
        domain: its name, for messages.
        uuid: what the lock is on.
        doing: what for, shown to whoever finds the lock taken.

    Raises:
        LockHeldError: somebody else works on the domain.
        StorageError: the lock file cannot be made.
    """
    path = directory / f"virtbackup-{uuid}.lock"
    descriptor = await to_thread.run_sync(_acquire, path, domain, doing)
    try:
        yield
    finally:
        # Closing drops the lock. It does not wait for a disk: the file is never synced.
        os.close(descriptor)


def _acquire(path: Path, domain: str, doing: str) -> int:
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        note = json.dumps({"pid": os.getpid(), "doing": doing}).encode()
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, note, 0)
    except BlockingIOError as error:
        holder = _holder(descriptor)
        os.close(descriptor)
        raise LockHeldError(
            f"{domain}: {holder} works on this domain", hint="Wait for it, or stop it."
        ) from error
    except OSError as error:
        os.close(descriptor)
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

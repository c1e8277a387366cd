"""The lock on a domain: ``flock`` on a file of this machine. All functions block.

The file is named after the domain's UUID, in a directory that belongs to the user:
``/run/virtbackup`` for root. Other users can neither hold the lock nor replace the file. Once it is
locked, a check confirms that it still has its name. ``signs`` informs other users.

The kernel releases a lock with its process, so a dead holder blocks nobody. The file is never
removed, because two processes could then lock two files of one name. Its content is only for
messages.
"""

import errno
import fcntl
import json
import os
import stat
from datetime import datetime
from pathlib import Path

from msgspec import Struct

from virtbackup_async.errors import LOCK_HINT, LockHeldError, StorageError
from virtbackup_async.files.directories import make_private
from virtbackup_async.files.refusals import close
from virtbackup_async.host import signs
from virtbackup_async.model.lock_holder import LockHolder

SYSTEM_DIRECTORY = Path("/run/virtbackup")
_MODE = 0o600
_MAX_TRIES = 5
_MAX_NOTE_BYTES = 4096
_MAX_DOING = 80


def lock_directory(state_directory: Path) -> Path:
    """Return ``/run/virtbackup``; for users that are not root, one in their state directory."""
    return SYSTEM_DIRECTORY if os.geteuid() == 0 else state_directory / "locks"


class _Note(Struct, frozen=True):
    """What a holder wrote into the lock file when it took the lock."""

    pid: int
    doing: str
    since: float


class HeldLock(Struct, frozen=True):
    """A domain's lock, see ``interface.DomainLock``."""

    descriptors: tuple[int, ...]
    is_alone: bool

    def release(self) -> None:
        # Closing releases the lock. It does not wait for a disk: the file is never synced.
        for descriptor in self.descriptors:
            close(descriptor)


def acquire(directory: Path, domain: str, uuid: str, doing: str) -> HeldLock:
    """Lock a domain.

    Args:
        directory: of the lock files, see :func:`lock_directory`.
        domain: its name, for messages.
        uuid: the domain's UUID, which names the lock.
        doing: the purpose, for the messages of other processes.

    Raises:
        LockHeldError: another process works on the domain.
        StorageError: the lock file cannot be created.
    """
    make_private(directory)
    lock = _lock(_lock_path(directory, uuid), domain, doing)
    try:
        sign = _put_up_sign(uuid, domain)
    except BaseException:
        close(lock)
        raise
    if sign.descriptor is None:
        return HeldLock((lock,), is_alone=not sign.others)
    return HeldLock((lock, sign.descriptor), is_alone=True)


def is_held(directory: Path, uuid: str) -> bool:
    """Return whether any process works on a domain, without touching its lock."""
    return holder(directory, uuid) is not None


def holder(directory: Path, uuid: str) -> LockHolder | None:
    """Return who works on a domain, without touching its lock; None if nobody does.

    The kernel knows the process. The note is believed only if it names the same one: a process that
    has just taken the lock has not written it yet, and other programs write none.
    """
    path = _lock_path(directory, uuid)
    if pids := signs.holders(path):
        note = _note_at(path)
        if note is not None and note.pid in pids:
            return LockHolder(note.pid, note.doing, note.since)
        return LockHolder(min(pids))
    pids = signs.others_at_work(uuid)
    return LockHolder(min(pids)) if pids else None


def _lock_path(directory: Path, uuid: str) -> Path:
    return directory / f"virtbackup-{uuid}.lock"


def _put_up_sign(uuid: str, domain: str) -> signs.Sign:
    sign = signs.put_up(uuid)
    heeded = signs.heeded(sign.others)
    if heeded:
        pids = ", ".join(map(str, sorted(heeded)))
        raise LockHeldError(f"process {pids} works on this domain", domain=domain, hint=LOCK_HINT)
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
            words = _words(_note(descriptor))
            close(descriptor)
            raise LockHeldError(
                f"{words} works on this domain", domain=domain, hint=LOCK_HINT
            ) from error
        except OSError as error:
            close(descriptor)
            raise StorageError(f"cannot lock {path}: {error.strerror}") from error
    raise StorageError(f"cannot lock {path}: it is exchanged for another file all the time")


def _is_the_file_there(descriptor: int, path: Path) -> bool:
    """Return whether a locked file still has its name; it must belong to this user.

    Raises:
        OSError: it never will, so another attempt is of no use.
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


def _words(note: _Note | None) -> str:
    if note is None:
        return "another process"
    try:
        since = datetime.fromtimestamp(note.since).astimezone()
    except (ValueError, OverflowError, OSError):
        return "another process"
    return f"process {note.pid} ({note.doing}, since {since:%Y-%m-%d %H:%M})"


def _note_at(path: Path) -> _Note | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return _note(descriptor)
    finally:
        close(descriptor)


def _note(descriptor: int) -> _Note | None:
    try:
        note = json.loads(os.pread(descriptor, _MAX_NOTE_BYTES, 0))
        # The holder wrote this note as it took the lock, so the file's time is that moment.
        since = os.fstat(descriptor).st_mtime
        return _Note(int(note["pid"]), str(note["doing"])[:_MAX_DOING], since)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError, OSError):
        return None

"""Leases: who works in a repository, told to everybody that shares its file system.

::

    leases/.<random>   made, locked (flock), then renamed:   leases/<token>
    holder             touches it every minute; sees at the end that it is still there
    somebody else      takes the lock: the holder is dead, if it was on this host
                       cannot take it: alive
                       another host, touched in the last hour: alive, whatever the lock says

Where locks do not reach over hosts, or at all, the hour alone decides; the clock is that of the
file system. Invariant: a holder whose lease was broken finds it gone, and publishes nothing.
"""

import fcntl
import os
import re
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, Protocol, TypeVar

from anyio import CancelScope, sleep, to_thread

from virtbackup_async.concurrency import open_background
from virtbackup_async.errors import CorruptError, LockHeldError, StorageError
from virtbackup_async.files import lacks
from virtbackup_async.files.closing import close
from virtbackup_async.files.held import Held
from virtbackup_async.files.refusals import storage_error
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.repository.format import sealed_json
from virtbackup_async.repository.storage.layout import Repository, sync, write_all
from virtbackup_async.repository.storage.reserve import is_full, release_reserve

REFRESH_S: Final = 60
EXPIRY_S: Final = 3600
PRUNER: Final = "sweep"
_NOTE_MAX_BYTES: Final = 4096
_LEASE: Final = re.compile(f"[0-9a-f]{{24}}|{PRUNER}")
# A lease that has no name yet, or a small file.
_DEBRIS: Final = re.compile(r"\.[0-9a-f]{16}|\.virtbackup-[0-9a-f]{16}\.tmp")


class Lease:
    """A lease that is held; ``close`` it."""

    def __init__(self, place: TargetPath, fd: int, held: Held) -> None:
        self.path = place.path
        self._place = place
        self._fd = fd
        self._held = held

    def refresh(self) -> None:
        """Say that the holder lives. Blocks."""
        with suppress(OSError):
            os.utime(self._fd)

    def check(self) -> None:
        """See that nobody has taken the holder for dead, or another repository's place. Blocks.

        Raises:
            LockHeldError: the lease was broken.
            StorageError: a directory of the repository was exchanged.
        """
        self._held.check()
        try:
            if os.path.samestat(self._place.status(), os.fstat(self._fd)):
                return
        except OSError:
            pass
        raise LockHeldError(
            f"the lease {self.path} was broken: this process stood still for an hour",
            hint="Run it again.",
        )

    def close(self) -> None:
        """Give it up. Blocks."""
        with suppress(OSError, LockHeldError, StorageError):
            self.check()
            self._place.unlink()
        self._held.close()
        close(self._fd)


def _hold(leases: TargetPath) -> Held:
    """Hold the directories in which the holder of a lease works, as far as they are there."""
    root = leases.parent
    try:
        others = [root / name for name in ("packs", "index")]
        return Held([root, leases, *(directory for directory in others if directory.exists())])
    except OSError as error:
        raise storage_error("read", root.path, error) from error


class Leased(Protocol):
    """Something that works under a lease; both of its methods block."""

    def refresh(self) -> None: ...

    def close(self) -> None: ...


L = TypeVar("L", bound=Leased)


@asynccontextmanager
async def open_leased(open_: Callable[[], L], name: str) -> AsyncIterator[L]:
    """Open something in a thread, refresh its lease until the block ends, and close it.

    Args:
        open_: opens it; blocks.
        name: the name of the task that refreshes the lease.
    """
    with CancelScope(shield=True):
        leased = await to_thread.run_sync(open_)
    try:
        async with open_background() as tasks:
            tasks.start_soon(_keep_fresh, leased.refresh, name=name)
            yield leased
    finally:
        with CancelScope(shield=True):
            await to_thread.run_sync(leased.close)


async def _keep_fresh(refresh: Callable[[], None]) -> None:
    while True:
        await sleep(REFRESH_S)
        await to_thread.run_sync(refresh)


def take_lease(directory: Path, token: str) -> Lease:
    """Take the lease of that name, which nobody has. Blocks.

    Raises:
        LockHeldError: somebody holds it.
        StorageError: it cannot be written.
    """
    place = _in_repository(directory) / token
    part = place.parent / f".{secrets.token_hex(8)}"
    fd = part.create()
    try:
        write_all(fd, sealed_json.dumps({"host": _host(), "pid": os.getpid()}), part.path)
        # Without locks, the touch alone tells.
        lacks.lock(fd, fcntl.LOCK_EX, place.target)
        sync(fd, part.path)
        held = _hold(place.parent)
        try:
            _give_name(part, place)
        except BaseException:
            held.close()
            raise
        return Lease(place, fd, held)
    except BaseException:
        close(fd)
        raise
    finally:
        # A second name of the lease by now, or nothing: the prune finds what stays.
        with suppress(OSError):
            part.unlink()


def _give_name(part: TargetPath, place: TargetPath) -> None:
    try:
        part.take_free_name(place.name)
    except FileExistsError as error:
        raise LockHeldError(f"another process holds {place}") from error
    except OSError as error:
        raise storage_error("write", place.path, error) from error
    try:
        place.parent.sync_names()
    except StorageError:
        with suppress(OSError):
            place.unlink()
        raise


def take_prune_lease(repository: Repository) -> Lease:
    """Be the one that removes packs and replaces segments of others. Blocks.

    Raises:
        LockHeldError: a prune or a repair is under way.
        StorageError: it cannot be written.
    """
    with suppress(LockHeldError):
        return _take_prune_lease(repository)
    # Its holder may be dead: then this breaks it.
    living_holders(repository.leases)
    return _take_prune_lease(repository)


def _take_prune_lease(repository: Repository) -> Lease:
    try:
        return take_lease(repository.leases, PRUNER)
    except StorageError as error:
        # On a target that is full there is room for this: for who gives room back.
        if is_full(error) and release_reserve(repository):
            return take_lease(repository.leases, PRUNER)
        raise


def living_writers(repository: Repository) -> frozenset[str]:
    """Return the tokens of those that live, other than who prunes; break the leases of the dead.

    Raises:
        StorageError: the leases cannot be read.
    """
    return living_holders(repository.leases) - {PRUNER}


def living_holders(directory: Path) -> frozenset[str]:
    """Return the names of leases whose holders live; break those of the dead. Blocks.

    Raises:
        StorageError: the leases cannot be read.
    """
    leases = _in_repository(directory)
    try:
        now_s = _clock_of(leases)
        names = [name for name in leases.file_names() if _LEASE.fullmatch(name)]
        return frozenset(name for name in names if _lives(leases / name, now_s))
    except OSError as error:
        raise storage_error("read", directory, error) from error


def _in_repository(directory: Path) -> TargetPath:
    return TargetPath.of(directory, 2)


def _lives(lease: TargetPath, now_s: float) -> bool:
    """Tell whether the holder of a lease lives; remove it if not."""
    try:
        fd = lease.open_file()
    except FileNotFoundError:
        return False
    try:
        if _is_alive(fd, now_s):
            return True
        # What only has the name of a writer's lease is let be; that of the prune has to be free.
        if lease.name == PRUNER or _note_in(fd) is not None:
            with suppress(FileNotFoundError):
                lease.unlink()
                lease.parent.sync_names()
        return False
    finally:
        close(fd)


def _is_alive(fd: int, now_s: float) -> bool:
    is_fresh = now_s - os.fstat(fd).st_mtime < EXPIRY_S
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        # Locked by a kernel that shares its locks with us: nothing is surer.
        return True
    except OSError:
        return is_fresh
    return is_fresh and _holder_host(fd) != _host()


def _holder_host(fd: int) -> object:
    note = _note_in(fd)
    return None if note is None else note.get("host")


def _note_in(fd: int) -> Mapping[str, object] | None:
    try:
        return sealed_json.loads(os.pread(fd, _NOTE_MAX_BYTES, 0), Path("lease"))
    except CorruptError:
        return None


def _host() -> str:
    try:
        return Path("/etc/machine-id").read_text(encoding="utf-8").strip()
    except OSError:
        return os.uname().nodename


def remove_debris(repository: Repository) -> None:
    """Remove temporary files that nobody has touched for an hour: their makers are dead. Blocks.

    Raises:
        StorageError: a directory is not readable or not writable.
    """
    root = repository.root
    try:
        now_s = _clock_of(root / "leases")
        for directory in (root, root / "index", root / "leases"):
            for name in filter(_DEBRIS.fullmatch, directory.file_names()):
                with suppress(FileNotFoundError):
                    if now_s - (directory / name).status().st_mtime > EXPIRY_S:
                        (directory / name).remove()
    except OSError as error:
        raise storage_error("read", repository.path, error) from error


def _clock_of(directory: TargetPath) -> float:
    """Return what time it is where the files are: hosts may differ."""
    # The directory is touched: on a full target no file could be made for it.
    fd = directory.open_directory()
    try:
        os.utime(fd)
        return os.fstat(fd).st_mtime
    finally:
        close(fd)

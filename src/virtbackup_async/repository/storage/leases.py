"""Leases show all hosts that share a repository which processes work in it.

::

    leases/<token>   the holder refreshes it every minute, and checks at the end that it exists
    others           it is locked: the holder is alive
                     it is not locked: the holder is dead, if it was on this host
                     another host, refreshed in the last hour: alive, locked or not

Where locks do not reach other hosts, or do not exist, the hour alone decides; the clock is the
storage's. Invariant: a holder whose lease was broken finds it gone, and publishes nothing.
"""

import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final, Protocol, TypeVar

from anyio import CancelScope, sleep, to_thread

from virtbackup_async.concurrency import open_background
from virtbackup_async.errors import CorruptError, LockHeldError, StorageFullError
from virtbackup_async.files.refusals import storage_error
from virtbackup_async.repository.format import sealed_json
from virtbackup_async.repository.storage.interface import (
    LEASE_EXPIRY_S,
    Kind,
    LeaseFile,
    LeaseLook,
    Storage,
)
from virtbackup_async.repository.storage.layout import (
    DIRECTORY,
    INDEX,
    LEASES,
    PACKS,
    lease_file,
)
from virtbackup_async.repository.storage.this_host import host_id, process_id

REFRESH_S: Final = 60
EXPIRY_S: Final = LEASE_EXPIRY_S
PRUNER: Final = "sweep"
READS: Final = "reads"
_LEASE: Final = re.compile(f"[0-9a-f]{{24}}|{PRUNER}")


class Lease:
    """A lease that is held; ``close`` it."""

    def __init__(self, holder: str, file: LeaseFile) -> None:
        self.holder = holder
        self._file = file

    def refresh(self) -> None:
        """Show that the holder is alive. Blocks."""
        self._file.refresh()

    def check(self) -> None:
        """Check that no process broke the lease, or exchanged a directory. Blocks.

        Raises:
            LockHeldError: the lease was broken.
            StorageError: a directory of the repository was exchanged.
        """
        if not self._file.is_held():
            raise LockHeldError(
                f"the lease {self._file.where} was broken: this process stood still for too long",
                hint="Run it again.",
            )

    def close(self) -> None:
        """Give the lease up. Blocks."""
        self._file.remove()


class Leased(Protocol):
    """An object that works under a lease; both of its methods block."""

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


def take_lease(storage: Storage, holder: str, reads: str = "") -> Lease:
    """Take the lease of that name, which must be free. Blocks.

    Args:
        storage: of the repository.
        holder: the lease's name.
        reads: marks of the packages that its holder reads (``package_leases.py``).

    Raises:
        LockHeldError: another process holds it.
        StorageError: it cannot be written.
    """
    note = sealed_json.dumps(
        {"host": host_id(), "pid": process_id(), **({READS: reads} if reads else {})}
    )
    name = lease_file(holder)
    try:
        return Lease(holder, storage.take_lease(name, note, (DIRECTORY, LEASES, PACKS, INDEX)))
    except FileExistsError as error:
        raise LockHeldError(f"another process holds {storage.where(name)}") from error


def take_prune_lease(storage: Storage) -> Lease:
    """Take the lease that allows removing packs and replacing segments of others. Blocks.

    Raises:
        LockHeldError: a prune or a repair is under way.
        StorageError: it cannot be written.
    """
    with suppress(LockHeldError):
        return _take_prune_lease(storage)
    # If its holder is dead, this breaks the lease.
    living_holders(storage)
    return _take_prune_lease(storage)


def _take_prune_lease(storage: Storage) -> Lease:
    try:
        return take_lease(storage, PRUNER)
    except StorageFullError:
        # The reserve is for this: a prune gives space back.
        if storage.release_reserve():
            return take_lease(storage, PRUNER)
        raise


def living_writers(storage: Storage) -> frozenset[str]:
    """Return the tokens of living writers; break the leases of dead ones. Blocks.

    Raises:
        StorageError: the leases cannot be read.
    """
    return living_holders(storage) - {PRUNER}


def living_holders(storage: Storage) -> frozenset[str]:
    """Return the living holders of leases; break the leases of dead ones. Blocks.

    Raises:
        StorageError: the leases cannot be read.
    """
    try:
        now_s = storage.clock(LEASES)
        holders = lease_holders(storage)
        return frozenset(holder for holder in holders if _is_alive(storage, holder, now_s))
    except OSError as error:
        raise storage_error("read", storage.where(LEASES), error) from error


def lease_holders(storage: Storage) -> list[str]:
    """Return the holders of all leases, dead ones too. Blocks.

    Raises:
        OSError: they cannot be listed.
        StorageError: the same.
    """
    return [name for name in storage.names(LEASES, {Kind.FILE}) if _LEASE.fullmatch(name)]


def is_living(storage: Storage, holders: Iterable[str]) -> Iterator[bool]:
    """Yield for each holder whether it is alive, and break its lease if it is dead. Blocks.

    Raises:
        OSError: a lease cannot be read.
        StorageError: the same.
    """
    now_s: float | None = None
    for holder in holders:
        now_s = storage.clock(LEASES) if now_s is None else now_s
        yield _is_alive(storage, holder, now_s)


def remove_temporary_files(storage: Storage) -> None:
    """Remove temporary files that have not changed for an hour: their makers are dead. Blocks.

    Raises:
        StorageError: a directory is not readable or not writable.
    """
    try:
        before_s = storage.clock(LEASES) - EXPIRY_S
    except OSError as error:
        raise storage_error("read", storage.where(LEASES), error) from error
    storage.remove_temporary_files((DIRECTORY, INDEX, LEASES), before_s)


def _is_alive(storage: Storage, holder: str, now_s: float) -> bool:
    """Return whether the holder of a lease is alive; remove the lease if it is not."""
    is_alive = False

    def is_dead(look: LeaseLook) -> bool:
        nonlocal is_alive
        note = _note_in(look)
        is_alive = _looks_alive(look, note, now_s)
        # A file that is no lease is left alone, unless it has the name of the prune's lease.
        return not is_alive and (holder == PRUNER or note is not None)

    with suppress(FileNotFoundError):
        storage.remove_lease_if(lease_file(holder), is_dead)
    return is_alive


def _looks_alive(look: LeaseLook, note: Mapping[str, object] | None, now_s: float) -> bool:
    if look.is_locked:
        # The lock is in a kernel that shares its locks with this one: this is certain.
        return True
    is_fresh = now_s - look.modified_s < look.expiry_s
    if look.is_locked is None:
        return is_fresh
    return is_fresh and (note or {}).get("host") != host_id()


def _note_in(look: LeaseLook) -> Mapping[str, object] | None:
    try:
        return sealed_json.loads(look.content, "lease")
    except CorruptError:
        return None

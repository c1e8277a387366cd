"""Locks: one worker at a time for a domain, and one remover for a package.

The lock on a domain is on the machine that has it (``host/interface.py``). The lock on a package is
``flock`` on the first of its files, in the target. The kernel releases a lock with its process, so
a dead holder blocks nobody.
"""

import fcntl
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

from anyio import current_time, sleep, to_thread
from msgspec import Struct

from virtbackup_async.errors import LOCK_HINT, LockHeldError
from virtbackup_async.files import lacks
from virtbackup_async.files.refusals import close
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.host.interface import DomainLocks
from virtbackup_async.model.target_file import TargetFile

T = TypeVar("T")

POLL_INTERVAL_S = 0.5


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
    locks: DomainLocks, domain: str, uuid: str, doing: str, lock_wait: LockWait = NO_WAIT
) -> AsyncGenerator[bool]:
    """Lock a domain; yield whether it is known that no other user works on it either.

    Args:
        locks: the machine that has the domain.
        domain: the domain's name, for messages.
        uuid: the domain's UUID.
        doing: the purpose, for the messages of other processes.
        lock_wait: how long to wait for the lock.

    Raises:
        LockHeldError: another process works on the domain.
        StorageError: the lock cannot be made.
    """
    held = await acquired(partial(locks.lock_domain, domain, uuid, doing), lock_wait)
    try:
        yield held.is_alone
    finally:
        held.release()


@asynccontextmanager
async def hold_package(
    files: Sequence[TargetFile], *, exclusive: bool, lock_wait: LockWait = NO_WAIT
) -> AsyncGenerator[None]:
    """Lock a package: shared, so that nobody removes it, or exclusively, to remove it.

    The lock is on the first of its files that exists. A pin, or the result of ``verify``, does not
    touch these files and never waits. Where a target is no directory of this machine, there are no
    such locks, and nobody waits here: ``reading.py`` has the leases that readers take in place of
    them, and ``catalog.removing`` respects them.

    Raises:
        LockHeldError: another process reads the package, or removes it.
    """
    acquire = partial(to_thread.run_sync, _acquire_package, tuple(files), exclusive)
    descriptor = await acquired(acquire, lock_wait)
    try:
        yield
    finally:
        if descriptor is not None:
            close(descriptor)


async def acquired(acquire: Callable[[], Awaitable[T]], lock_wait: LockWait) -> T:
    """Try again and again, as long as a ``LockHeldError`` is raised and there is time to wait.

    A thread that waits for ``flock`` could not be cancelled.
    """
    deadline = current_time() + lock_wait.wait_s
    has_told = False
    while True:
        try:
            return await acquire()
        except LockHeldError as error:
            if lock_wait.wait_s > 0 and not has_told:
                lock_wait.on_wait(error.message)
                has_told = True
            if current_time() >= deadline:
                raise
        await sleep(min(POLL_INTERVAL_S, max(0, deadline - current_time())))


def _acquire_package(files: Sequence[TargetFile], exclusive: bool) -> int | None:  # noqa: FBT001 -- for a thread
    # NFS wants a file that is to be locked exclusively to be open for writing.
    flags = os.O_RDWR if exclusive else os.O_RDONLY
    for file in files:
        place = file.target.plain_directory
        if place is None:
            return None
        try:
            descriptor = TargetPath.at(file).open_file(flags)
        except OSError:
            continue  # missing, or unreadable, which its reader reports
        how = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
        if not lacks.lock(descriptor, how, place):
            close(descriptor)
            doing = "reads or removes" if exclusive else "removes"
            raise LockHeldError(f"another process {doing} {file}", hint=LOCK_HINT)
        return descriptor
    return None

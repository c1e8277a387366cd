"""Undoing one killed backup for ``clean``: under the domain's lock, with libvirt where needed.

What is undone, and in which order, stands in ``broken``; which domain it was, in ``whereabouts``.
"""

import logging
from contextlib import AsyncExitStack
from pathlib import Path

from msgspec import Struct

from virtbackup_async.catalog.scanning import FoundPending
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.engine.broken import overlaid_disks, undo_pending
from virtbackup_async.engine.locks import Patience, hold_domain
from virtbackup_async.engine.ports import HypervisorPort, ImageUser
from virtbackup_async.engine.whereabouts import GoneDomain, find_domain, lock_name
from virtbackup_async.errors import LockHeldError, VirtBackupError
from virtbackup_async.events import Emit, PendingLeft, PendingUndone
from virtbackup_async.model.backup import Pending

_log = logging.getLogger(__name__)


class Undoing(Struct, frozen=True):
    """What the undo of each pending backup of a target needs."""

    hypervisor: HypervisorPort
    catalog: Catalog
    lock_directory: Path
    emit: Emit


async def undo_broken(
    undoing: Undoing, group: str, found: FoundPending, patience: Patience
) -> None:
    """Undo a pending backup, and say by an event what came of it; raises nothing of ours."""
    pending = found.pending

    def left(error: str, *, in_use: bool = False) -> None:
        path = str(found.path)
        event = PendingLeft(group, pending.domain_name, pending.name, path, error, in_use)
        undoing.emit(event)

    try:
        undone = await _undo(undoing, found, patience)
    except LockHeldError as error:
        left(f"is being worked on: {error.message}", in_use=True)
    except VirtBackupError as error:
        left(str(error))
    except Exception as error:  # noqa: BLE001 -- a mistake of ours must not stop other domains
        _log.exception("%s: unexpected error", pending.domain_name)
        left(f"unexpected: {type(error).__name__}: {error}")
    else:
        if undone:
            undoing.emit(PendingUndone(group, pending.domain_name, pending.name))


async def _undo(undoing: Undoing, found: FoundPending, patience: Patience) -> bool:
    """Return False if it ended by itself before we had the lock."""
    name, locked = found.pending.domain_name, lock_name(found.pending)
    async with AsyncExitStack() as locks:
        directory = undoing.lock_directory
        await locks.enter_async_context(hold_domain(directory, name, locked, "clean", patience))
        pending = await undoing.catalog.read_pending(found.path)
        if pending is None:
            return False
        domain, uuid = await _domain_of(undoing.hypervisor, pending)
        if uuid not in (None, locked):
            lock = hold_domain(directory, domain.name, uuid, "clean", patience)
            await locks.enter_async_context(lock)
        again = FoundPending(pending, found.path)
        await undo_pending(undoing.hypervisor, domain, undoing.catalog, again)
    return True


async def _domain_of(hypervisor: HypervisorPort, pending: Pending) -> tuple[ImageUser, str | None]:
    """Return the domain and its UUID; libvirt is asked only where it may have been changed."""
    if not overlaid_disks(pending) and pending.pull_job is None:
        return GoneDomain(pending.domain_name), None
    domain = await find_domain(hypervisor, pending)
    return domain, None if isinstance(domain, GoneDomain) else domain.uuid

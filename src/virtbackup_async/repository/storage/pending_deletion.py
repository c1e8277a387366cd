"""Packs pending deletion: a note that the prune leaves for writers, and for itself.

::

    prune     writes the note, durably          then looks for leases
    writer    takes its lease, durably          then reads the note

Either the writer sees the note, and stores the chunks again that only these packs have; or the
prune sees the writer, and waits for it. ``waiting_for`` are the writers that the prune saw.
"""

from msgspec import Struct

from virtbackup_async.errors import REPAIR_HINT, CorruptError
from virtbackup_async.repository.format import sealed_json
from virtbackup_async.repository.storage.interface import Storage
from virtbackup_async.repository.storage.layout import PENDING_DELETION


class PendingDeletion(Struct, frozen=True):
    """Packs to be removed once some writers have ended; None if these are not known yet."""

    packs: frozenset[bytes] = frozenset()
    waiting_for: frozenset[str] | None = None


def read_pending_deletion(storage: Storage) -> PendingDeletion:
    """Return the note; an empty one if there is none. Blocks.

    Raises:
        CorruptError: it is damaged.
        StorageError: it cannot be read.
    """
    data = storage.read(PENDING_DELETION, sealed_json.MAX_BYTES)
    if data is None:
        return PendingDeletion()
    where = storage.where(PENDING_DELETION)
    try:
        value = sealed_json.loads(data, where)
        packs = frozenset(map(bytes.fromhex, value["packs"]))
        waiting_for = value["waiting_for"]
        return PendingDeletion(
            packs, None if waiting_for is None else frozenset(map(str, waiting_for))
        )
    except CorruptError as error:
        raise error.reworded(error.message, REPAIR_HINT) from error
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptError(f"cannot be understood: {where}", hint=REPAIR_HINT) from error


def write_pending_deletion(storage: Storage, note: PendingDeletion) -> None:
    """Write the note, durably, in place of an earlier one. Blocks.

    Raises:
        StorageError: the target is full or not writable.
    """
    waiting_for = note.waiting_for
    value = {
        "packs": sorted(pack.hex() for pack in note.packs),
        "waiting_for": None if waiting_for is None else sorted(waiting_for),
    }
    storage.replace(PENDING_DELETION, sealed_json.dumps(value))


def remove_pending_deletion(storage: Storage) -> None:
    """Remove the note, durably. Blocks."""
    storage.remove(PENDING_DELETION)

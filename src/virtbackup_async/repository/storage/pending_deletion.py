"""Packs that are about to go: a note that the prune leaves for writers, and for itself.

::

    prune     writes the note, durably          then looks who holds a lease
    writer    takes its lease, durably          then reads the note

So either the writer sees the note, and stores again what it finds only in these packs; or the prune
sees the writer, and waits for it. ``waiting_for`` are the writers that the prune saw.
"""

from msgspec import Struct

from virtbackup_async.errors import CorruptError
from virtbackup_async.repository.format import sealed_json
from virtbackup_async.repository.storage.layout import Repository
from virtbackup_async.repository.storage.reading import REPAIR_HINT, with_repair_hint


class PendingDeletion(Struct, frozen=True):
    """Packs to be removed once none of some writers is there any more; None: not looked yet."""

    packs: frozenset[bytes] = frozenset()
    waiting_for: frozenset[str] | None = None


def read_pending_deletion(repository: Repository) -> PendingDeletion:
    """Return the note; an empty one if there is none. Blocks.

    Raises:
        CorruptError: it is damaged.
        StorageError: it cannot be read.
    """
    path = repository.pending_deletion
    data = repository.inside(path).read(sealed_json.MAX_BYTES)
    if data is None:
        return PendingDeletion()
    try:
        value = sealed_json.loads(data, path)
        packs = frozenset(map(bytes.fromhex, value["packs"]))
        waiting_for = value["waiting_for"]
        return PendingDeletion(
            packs, None if waiting_for is None else frozenset(map(str, waiting_for))
        )
    except CorruptError as error:
        raise with_repair_hint(error) from error
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptError(f"cannot be understood: {path}", hint=REPAIR_HINT) from error


def write_pending_deletion(repository: Repository, condemned: PendingDeletion) -> None:
    """Leave the note, durably, in place of one that is there. Blocks.

    Raises:
        StorageError: the target is full or not writable.
    """
    waiting_for = condemned.waiting_for
    value = {
        "packs": sorted(pack.hex() for pack in condemned.packs),
        "waiting_for": None if waiting_for is None else sorted(waiting_for),
    }
    repository.inside(repository.pending_deletion).replace(sealed_json.dumps(value))


def remove_pending_deletion(repository: Repository) -> None:
    """Remove the note, durably. Blocks."""
    repository.inside(repository.pending_deletion).remove()

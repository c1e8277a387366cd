"""Packs that are about to go: a note that the sweep leaves for writers, and for itself.

::

    sweep     writes the note, durably          then looks who holds a lease
    writer    takes its lease, durably          then reads the note

So either the writer sees the note, and stores again what it finds only in these packs; or the sweep
sees the writer, and waits for it. ``waiting_for`` are the writers that the sweep saw.
"""

from msgspec import Struct

from virtbackup_async.errors import CorruptError
from virtbackup_async.repository.format import sealed_json
from virtbackup_async.repository.storage.layout import Repository
from virtbackup_async.repository.storage.reading import REPAIR_HINT, mendable


class Condemned(Struct, frozen=True):
    """Packs to be removed once none of some writers is there any more; None: not looked yet."""

    packs: frozenset[bytes] = frozenset()
    waiting_for: frozenset[str] | None = None


def read_condemned(repository: Repository) -> Condemned:
    """Return the note; an empty one if there is none. Blocks.

    Raises:
        CorruptError: it is damaged.
        StorageError: it cannot be read.
    """
    path = repository.condemned
    data = repository.inside(path).read(sealed_json.MAX_BYTES)
    if data is None:
        return Condemned()
    try:
        value = sealed_json.loads(data, path)
        packs = frozenset(map(bytes.fromhex, value["packs"]))
        waiting_for = value["waiting_for"]
        return Condemned(packs, None if waiting_for is None else frozenset(map(str, waiting_for)))
    except CorruptError as error:
        raise mendable(error) from error
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptError(f"cannot be understood: {path}", hint=REPAIR_HINT) from error


def write_condemned(repository: Repository, condemned: Condemned) -> None:
    """Leave the note, durably, in place of one that is there. Blocks.

    Raises:
        StorageError: the target is full or not writable.
    """
    waiting_for = condemned.waiting_for
    value = {
        "packs": sorted(pack.hex() for pack in condemned.packs),
        "waiting_for": None if waiting_for is None else sorted(waiting_for),
    }
    repository.inside(repository.condemned).replace(sealed_json.dumps(value))


def remove_note(repository: Repository) -> None:
    """Remove the note, durably. Blocks."""
    repository.inside(repository.condemned).remove()

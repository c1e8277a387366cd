"""Damage that ``repair`` recorded because it cannot repair it: a prune continues in spite of it.

::

    a map misses chunks, or is damaged itself      the prune stops: it cannot know what is needed
    repair has searched everything                 it records the map, and how many chunks it misses
    the same map, and no more chunks missing       the prune continues, and keeps the map's chunks

The note has the hash of each map, and how many chunks were missing then. So damage that comes
later, such as a lost part of the index, stops the prune again.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing

import msgspec
import numpy as np
from blake3 import blake3
from msgspec import Struct, field
from msgspec.structs import asdict

from virtbackup_async.errors import CorruptError
from virtbackup_async.files.refusals import reading
from virtbackup_async.repository.format import map_format, sealed_json
from virtbackup_async.repository.format.map_format import Leaves
from virtbackup_async.repository.storage.interface import PartlyReadable, Storage, StoredFile
from virtbackup_async.repository.storage.layout import KNOWN_DAMAGE

_ENTRY = map_format.ENTRY_BYTES
_PIECE_BYTES = _ENTRY << 14


class MapDamage(Struct, frozen=True):
    """The known damage of a map.

    Attributes:
        content: BLAKE3 of the whole file.
        missing: how many of its chunks are not in the index.
        is_damaged: whether the map itself is damaged.
    """

    content: str
    missing: int
    is_damaged: bool


class KnownDamage(Struct, frozen=True):
    """The maps that are damaged or miss chunks, by name."""

    maps: dict[str, MapDamage] = field(default_factory=dict)

    def of(self, storage: Storage, name: str) -> MapDamage | None:
        """Return the known damage of a map as it is now; None if there is none. Blocks.

        Raises:
            CorruptError: it cannot be read.
            FileNotFoundError: it is gone.
        """
        known = self.maps.get(name)
        if known is None or known.content != content_of_map(storage, name):
            return None
        return known


def content_of_map(storage: Storage, name: str) -> str:
    """Return the hash of a map, which another map of that name does not have. Blocks.

    It is that of the content; of a sealed file that cannot be opened, of what is stored.

    Raises:
        CorruptError: it cannot be read.
        FileNotFoundError: it is gone.
    """
    try:
        return _hash_of(storage.where(name), storage.open, name)
    except CorruptError:
        if not isinstance(storage, PartlyReadable):
            raise
        return _hash_of(storage.where(name), storage.open_stored, name)


def _hash_of(where: str, open_: Callable[[str], StoredFile], name: str) -> str:
    digest = blake3()
    for _, piece in _pieces(where, open_, name):
        digest.update(piece)
    return digest.hexdigest()


def readable_leaves(storage: Storage, name: str) -> Leaves:
    """Return all leaves in a damaged map; some may be garbage. Blocks.

    Raises:
        CorruptError: it cannot be read.
        FileNotFoundError: it is gone.
    """
    if isinstance(storage, PartlyReadable):
        with reading("package", storage.where(name)):
            return _leaves_in(storage.readable_parts(name))
    return _leaves_in(_pieces(storage.where(name), storage.open, name))


def _leaves_in(parts: Iterable[tuple[int, bytes]]) -> Leaves:
    """Return the leaves of all entries that are whole in parts of a map."""
    found = [np.empty(0, dtype=map_format.ENTRY["leaf"])]
    rest, end = b"", 0
    for offset, part in parts:
        data = rest + part if offset == end else part
        end = offset + len(part)
        start = end - len(data)
        skipped = max(map_format.HEAD_BYTES - start, (map_format.HEAD_BYTES - start) % _ENTRY)
        whole = max(0, len(data) - skipped) // _ENTRY * _ENTRY
        entries = data[skipped : skipped + whole]
        found.append(np.frombuffer(entries, dtype=map_format.ENTRY)["leaf"])
        rest = data[skipped + whole :] if len(data) > skipped else data
    return np.concatenate(found)


def _pieces(
    where: str, open_: Callable[[str], StoredFile], name: str
) -> Iterator[tuple[int, bytes]]:
    with reading("package", where), closing(open_(name)) as file:
        for at in range(0, file.size_bytes, _PIECE_BYTES):
            yield at, file.read(min(_PIECE_BYTES, file.size_bytes - at), at)


def read_known_damage(storage: Storage) -> KnownDamage:
    """Return the note; an empty one if there is none, or none that can be read. Blocks.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        data = storage.read(KNOWN_DAMAGE, sealed_json.MAX_BYTES)
        if data is None:
            return KnownDamage()
        value = sealed_json.loads(data, storage.where(KNOWN_DAMAGE))
        return msgspec.convert(value, KnownDamage)
    except (CorruptError, msgspec.ValidationError):
        # Without the note the prune stops as before, and `repair` writes it again.
        return KnownDamage()


def write_known_damage(storage: Storage, known: KnownDamage) -> None:
    """Write the note, durably, or remove it if there is no known damage. Blocks.

    Raises:
        StorageError: the target is full or not writable.
    """
    if not known.maps:
        storage.remove(KNOWN_DAMAGE)
        return
    maps = {name: asdict(damage) for name, damage in sorted(known.maps.items())}
    storage.replace(KNOWN_DAMAGE, sealed_json.dumps({"maps": maps}))

"""The files of a repository, and their names.

::

    TARGET/.virtbackup-repository/
    |-- repository                   id, version, length of chunks
    |-- condemned                    packs pending deletion: no writer may rely on them
    |-- damaged                      maps that cannot be repaired (see known_damage.py)
    |-- packs/1f/1f...0007.pack      chunks; the first 24 digits of the name are its writer's
    |-- index/1f...-7.index          a segment: where the chunks are
    |-- keys/3f9a...                 a key slot, if the repository is encrypted
    |-- run-keys/1f...-9c...-0       the sealed key of a run, if the repository is sealed
    `-- leases/1f...                 a living writer, or the prune

Names are those of the target's storage. Those that begin with a dot are temporary.
"""

import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from msgspec import Struct

from virtbackup_async.repository.format.cipher import PlainSealing, Sealing
from virtbackup_async.repository.storage.interface import Kind, Storage

DIRECTORY: Final = ".virtbackup-repository"
REPOSITORY_FILE: Final = f"{DIRECTORY}/repository"
PENDING_DELETION: Final = f"{DIRECTORY}/condemned"
KNOWN_DAMAGE: Final = f"{DIRECTORY}/damaged"
PACKS: Final = f"{DIRECTORY}/packs"
INDEX: Final = f"{DIRECTORY}/index"
LEASES: Final = f"{DIRECTORY}/leases"
KEYS: Final = f"{DIRECTORY}/keys"
RUN_KEYS: Final = f"{DIRECTORY}/run-keys"
TOKEN_BYTES: Final = 12
_PACK_SUFFIX: Final = ".pack"
_INDEX_SUFFIX: Final = ".index"
_PREFIX: Final = re.compile("[0-9a-f]{2}")
_PACK: Final = re.compile(r"[0-9a-f]{32}\.pack")
_ANY_KIND: Final = frozenset(Kind)


class Repository(Struct, frozen=True):
    """A repository that exists.

    Attributes:
        storage: the target's.
        id: is in all of its files.
        sealing: makes the ids of chunks, and their blobs.
    """

    storage: Storage
    id: bytes
    sealing: Sealing = PlainSealing()

    @property
    def where(self) -> str:
        """Its name in messages."""
        return self.storage.where(DIRECTORY)

    @property
    def target(self) -> str:
        """The name of its target in messages."""
        return self.storage.where()

    def where_is(self, pack: bytes) -> str:
        """Return the name of a pack's file in messages."""
        return self.storage.where(pack_file(pack))


class MapFile(Struct, frozen=True):
    """A map in a target, as the packager lists it, which names the maps.

    Attributes:
        name: of the file, in the target's storage.
        disk: the same for all maps of one disk, and for no other. In a list, the maps of a disk
            follow each other by date, so that chunks they share are looked up once.
    """

    name: str
    disk: str


ListMaps = Callable[[], Sequence[MapFile]]
"""Lists all maps of a target. Blocks. Raises StorageError if a directory cannot be read."""


def new_token() -> str:
    """Return a name for a writer: 24 digits."""
    return secrets.token_hex(TOKEN_BYTES)


def pack_name(token: str, number: int) -> bytes:
    """Return the name of a writer's pack: 16 bytes."""
    return bytes.fromhex(token) + number.to_bytes(4, "big")


def token_of(pack: bytes) -> str:
    """Return the writer of a pack."""
    return pack[:TOKEN_BYTES].hex()


def pack_file(pack: bytes) -> str:
    """Return the file of a pack."""
    name = pack.hex()
    return f"{PACKS}/{name[:2]}/{name}{_PACK_SUFFIX}"


def segment_file(token: str, number: int) -> str:
    """Return the file of a writer's segment of the index."""
    return f"{INDEX}/{token}-{number}{_INDEX_SUFFIX}"


def segment_token(name: str) -> str:
    """Return the writer of a segment."""
    return name.rpartition("/")[2].partition("-")[0]


def lease_file(holder: str) -> str:
    """Return the file of a lease."""
    return f"{LEASES}/{holder}"


def list_packs(storage: Storage) -> Iterator[bytes]:
    """Yield the names of all packs; none if their directory is lost. Blocks.

    Raises:
        StorageError: a directory cannot be read.
    """
    for prefix in filter(_PREFIX.fullmatch, _names(storage, PACKS, {Kind.DIRECTORY})):
        for name in _names(storage, f"{PACKS}/{prefix}", {Kind.FILE}):
            if name.startswith(prefix) and _PACK.fullmatch(name):
                yield bytes.fromhex(name.removesuffix(_PACK_SUFFIX))


def pack_sizes(storage: Storage, packs: Iterable[bytes]) -> dict[bytes, int]:
    """Return the lengths in bytes of those packs that exist. Blocks.

    Raises:
        StorageError: a directory cannot be read.
    """
    files = {pack_file(pack): pack for pack in packs}
    return {files[name]: size_bytes for name, size_bytes in storage.sizes(files).items()}


def list_segments(storage: Storage) -> list[str]:
    """Return the files of all segments of the index; none if it is lost. Blocks.

    Raises:
        StorageError: the directory cannot be read.
    """
    # Anything else that has such a name is found damaged when it is opened.
    names = _names(storage, INDEX, _ANY_KIND)
    return [f"{INDEX}/{name}" for name in names if name.endswith(_INDEX_SUFFIX) and name[0] != "."]


def _names(storage: Storage, directory: str, kinds: Iterable[Kind]) -> list[str]:
    try:
        return storage.names(directory, frozenset(kinds))
    except FileNotFoundError:
        return []

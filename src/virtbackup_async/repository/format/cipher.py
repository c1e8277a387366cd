"""The seam for encryption: how the id of a chunk is made, and how its blob.

::

    image   | 256 KiB |   a leaf of the image's digest: BLAKE3, whether there is a key or not
    map     | leaf    |   so the digest of an image follows from its map
    index   | id      |   id_of(leaf): the leaf itself, or what only a key can make of it
    pack    | blob    |   seal(id, chunk): as it is, or encrypted

Code that looks up the chunks of a map calls ``id_of`` or ``ids_of``; code that writes or reads a
blob calls ``seal`` or ``open``. Nothing else in the repository knows how ids and blobs are made.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from msgspec import Struct

from virtbackup_async.repository.format import pack_format
from virtbackup_async.repository.format.pack_format import Data, PackShape

if TYPE_CHECKING:  # numpy takes long to load, and to find a repository needs none
    from virtbackup_async.repository.format.map_format import Leaves


class BlobPlace(NamedTuple):
    """What the head of a blob says: the id of its chunk, and the length of all of it."""

    id: bytes
    length_bytes: int


class RunKeys(Protocol):
    """The sealed keys of runs, one of which each blob of a sealed repository takes to open."""

    def run_of(self, blob: Data | bytearray) -> bytes:
        """Return the run whose key a blob takes to open.

        Raises:
            CorruptError: the head of the blob is damaged.
        """

    def run_key(self, run: bytes) -> bytes:
        """Return the sealed key of a run. Blocks.

        Raises:
            CorruptError: it is missing or damaged.
        """

    def learn_from(self, other: "RunKeys") -> None:
        """Find the keys of runs in another repository too, whose blobs are taken as they are."""


class Sealing(Protocol):
    """How a repository makes ids and blobs. Any thread may call it.

    Of two repositories whose sealings are equal, a blob of one is as good in the other.
    """

    def __hash__(self) -> int: ...

    @property
    def shape(self) -> PackShape:
        """How the packs are divided."""

    @property
    def can_read(self) -> bool:
        """Whether ``open`` works: with the keys that are here, chunks can be read."""

    def id_of(self, leaf: bytes) -> bytes:
        """Return the id of a chunk: 32 bytes, as good as random, the same for the same leaf."""

    def ids_of(self, leaves: "Leaves") -> "Leaves":
        """Return the ids of many chunks, one for each leaf."""

    def seal(self, id_: bytes, data: memoryview, compressed: bytes) -> bytes | bytearray:
        """Return the blob of a chunk.

        Args:
            id_: of the chunk.
            data: the chunk.
            compressed: the chunk as a zstd frame, used if it is shorter.

        Returns:
            A head and a payload, at most ``pack_format.MAX_BLOB_BYTES`` together.
        """

    def open(self, blob: Data, id_: bytes) -> Data:
        """Return the chunk in a blob, after a comparison with its id.

        Raises:
            CorruptError: the blob is damaged, or holds another chunk.
            ConfigError: the keys that are here cannot read chunks.
        """

    def check(self, blob: Data, id_: bytes) -> None:
        """Check that a blob holds a chunk, as well as the keys that are there allow.

        Raises:
            CorruptError: as ``open`` does.
        """

    def look(self, head: Data) -> BlobPlace:
        """Return what the first bytes of a blob say.

        Raises:
            CorruptError: they are damaged, or not the head of a blob.
        """

    @property
    def run_keys(self) -> "RunKeys | None":
        """What the blobs of a sealed repository take to open, beside the packs; else None."""

    def forget(self) -> None:
        """Forget the keys of the packs that were written; what is written later has others."""

    def candidates(self, window: bytes, offset: int) -> Iterable[int]:
        """Return the places in a part of a pack at which a blob could begin, ascending.

        Args:
            window: the part.
            offset: its place in the pack.
        """


class PlainSealing(Struct, frozen=True):
    """No key: the id of a chunk is its leaf, and anybody can read a blob."""

    @property
    def shape(self) -> PackShape:
        return pack_format.PLAIN_SHAPE

    @property
    def can_read(self) -> bool:
        return True

    def id_of(self, leaf: bytes) -> bytes:
        return leaf

    def ids_of(self, leaves: "Leaves") -> "Leaves":
        return leaves

    def seal(self, id_: bytes, data: memoryview, compressed: bytes) -> bytes:
        return pack_format.encode_blob(id_, data, compressed)

    def open(self, blob: Data, id_: bytes) -> Data:
        return pack_format.decode_blob(blob, id_)

    def check(self, blob: Data, id_: bytes) -> None:
        pack_format.decode_blob(blob, id_)

    def look(self, head: Data) -> BlobPlace:
        found = pack_format.decode_blob_head(head)
        return BlobPlace(found.id, pack_format.BLOB_HEAD_BYTES + found.stored_bytes)

    @property
    def run_keys(self) -> RunKeys | None:
        return None

    def forget(self) -> None:
        """There are no keys."""

    def candidates(self, window: bytes, offset: int) -> Iterable[int]:  # noqa: ARG002 -- of sealed ones
        found = window.find(pack_format.BLOB_MAGIC)
        while found >= 0:
            yield found
            found = window.find(pack_format.BLOB_MAGIC, found + 1)

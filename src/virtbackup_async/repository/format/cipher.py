"""The seam for encryption: how the id of a chunk is made, and how its blob.

::

    image   | 256 KiB |   a leaf of the image's digest: BLAKE3, whether there is a key or not
    map     | leaf    |   so the digest of an image follows from its map
    index   | id      |   id_of(leaf): the leaf itself, or what only a key can make of it
    pack    | blob    |   seal(id, chunk): as it is, or encrypted

Code that looks up the chunks of a map calls ``id_of`` or ``ids_of``; code that writes or reads a
blob calls ``seal`` or ``open``. Nothing else in the repository knows how ids and blobs are made.
"""

from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from virtbackup_async.repository.format import pack_format
from virtbackup_async.repository.format.pack_format import Data

if TYPE_CHECKING:  # numpy takes long to load, and to find a repository needs none
    from virtbackup_async.repository.format.map_format import Leaves


class Sealing(Protocol):
    """How a repository makes ids and blobs. Any thread may call it."""

    def __hash__(self) -> int: ...

    def id_of(self, leaf: bytes) -> bytes:
        """Return the id of a chunk: 32 bytes, as good as random, the same for the same leaf."""

    def ids_of(self, leaves: "Leaves") -> "Leaves":
        """Return the ids of many chunks, one for each leaf."""

    def seal(self, id_: bytes, data: memoryview, compressed: bytes) -> bytes:
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
        """


class PlainSealing(Struct, frozen=True):
    """No key: the id of a chunk is its leaf, and anybody can read a blob."""

    def id_of(self, leaf: bytes) -> bytes:
        return leaf

    def ids_of(self, leaves: "Leaves") -> "Leaves":
        return leaves

    def seal(self, id_: bytes, data: memoryview, compressed: bytes) -> bytes:
        return pack_format.encode_blob(id_, data, compressed)

    def open(self, blob: Data, id_: bytes) -> Data:
        return pack_format.decode_blob(blob, id_)

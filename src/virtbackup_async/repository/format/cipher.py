"""What a key would change: by which id a chunk is found, and what a pack holds of it.

::

    image   | 256 KiB |   a leaf of the image's digest: BLAKE3, whether there is a key or not
    map     | leaf    |   so the digest of an image follows from its map
    index   | id      |   id_of(leaf): the leaf itself, or what only a key can make of it
    pack    | blob    |   seal(id, chunk): as it is, or encrypted

Whoever looks up what a map names goes by ``id_of`` and ``ids_of``; whoever writes or reads a blob
goes by ``seal`` and ``open``. Nothing else in the repository knows how ids and blobs are made.
"""

from typing import Protocol

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from virtbackup_async.repository.format import pack_format
from virtbackup_async.repository.format.pack_format import Data

Leaves = NDArray[np.void]
"""Some leaves, 32 bytes each, as a map's entries have them; ids have the same type."""


class Sealing(Protocol):
    """How a repository makes ids and blobs; several threads may ask at once."""

    def __hash__(self) -> int: ...

    def id_of(self, leaf: bytes) -> bytes:
        """Return the id of a chunk: 32 bytes, as good as random, the same for the same leaf."""

    def ids_of(self, leaves: Leaves) -> Leaves:
        """Return the ids of many chunks, one for each leaf."""

    def seal(self, id_: bytes, data: memoryview, compressed: bytes) -> bytes:
        """Return what a pack holds of a chunk.

        Args:
            id_: of the chunk.
            data: the chunk.
            compressed: the chunk as a zstd frame, used if it is shorter.

        Returns:
            A head and a payload, at most ``pack_format.MAX_BLOB_BYTES`` together.
        """

    def open(self, blob: Data, id_: bytes) -> Data:
        """Return a chunk out of its blob, compared with its id.

        Raises:
            CorruptError: the blob is damaged, or that of another chunk.
        """


class PlainSealing(Struct, frozen=True):
    """No key: the id of a chunk is its leaf, and a blob is readable by everybody."""

    def id_of(self, leaf: bytes) -> bytes:
        return leaf

    def ids_of(self, leaves: Leaves) -> Leaves:
        return leaves

    def seal(self, id_: bytes, data: memoryview, compressed: bytes) -> bytes:
        return pack_format.encode_blob(id_, data, compressed)

    def open(self, blob: Data, id_: bytes) -> Data:
        return pack_format.decode_blob(blob, id_)

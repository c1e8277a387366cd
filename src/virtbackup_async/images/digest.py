"""``blake3-1m``, the digest of an image: a hash over the hashes of its MiBs.

::

    image    |  MiB 0  |  MiB 1  |   ...   | short last one |
    leaves   | BLAKE3  | BLAKE3  |         | BLAKE3         |    32 bytes each
    digest   BLAKE3( length of the image as 8 bytes little-endian, leaf 0, leaf 1, ... )

A hole reads as zeros, and the leaf of a MiB of zeros is known: a sparse disk of 100 GiB is hashed
in milliseconds. And whoever has the leaf knows whether a chunk is all zeros without looking
again. Made by the streams of ``stream.py``, in order; docs/formats.md has the format.
"""

from typing import Final

from blake3 import blake3

from virtbackup_async.images.buffers import CHUNK_BYTES

PREFIX: Final = "blake3-1m:"
_LEAVES_AT_ONCE: Final = 4096


def leaf_of(data: memoryview | bytes) -> bytes:
    """The leaf of one chunk: 32 bytes."""
    return blake3(data).digest()


_ZERO_LEAF: Final = leaf_of(bytes(CHUNK_BYTES))
_MANY_ZERO_LEAVES: Final = _ZERO_LEAF * _LEAVES_AT_ONCE


def zero_leaf_of(length_bytes: int) -> bytes:
    """The leaf of a chunk of ``length_bytes`` zeros."""
    return _ZERO_LEAF if length_bytes == CHUNK_BYTES else leaf_of(bytes(length_bytes))


class ImageDigest:
    """The digest of an image of ``size_bytes``; leaves that are not added count as zeros.

    Not for the event loop where holes are huge: a TiB of them takes some milliseconds.
    """

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._next_leaf = 0
        self._hash = blake3(size_bytes.to_bytes(8, "little"))

    def add(self, offset: int, leaf: bytes) -> None:
        """Add the leaf of the chunk at ``offset``; offsets must ascend."""
        self._add_zeros_up_to(offset // CHUNK_BYTES)
        self._hash.update(leaf)
        self._next_leaf += 1

    def finish(self) -> str:
        """The digest as text, ``blake3-1m:<64 hex>``."""
        whole, rest = divmod(self._size_bytes, CHUNK_BYTES)
        self._add_zeros_up_to(whole)
        if rest and self._next_leaf == whole:
            self._hash.update(zero_leaf_of(rest))
        return PREFIX + self._hash.hexdigest()

    def _add_zeros_up_to(self, leaf: int) -> None:
        missing = max(0, leaf - self._next_leaf)
        while missing > 0:
            now = min(missing, _LEAVES_AT_ONCE)
            self._hash.update(_MANY_ZERO_LEAVES[: now * len(_ZERO_LEAF)])
            self._next_leaf += now
            missing -= now

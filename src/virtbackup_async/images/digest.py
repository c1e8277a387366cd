"""``blake3-256k``, the digest of an image: a hash over the hashes of its leaves of 256 KiB.

::

    image    | 256 KiB | 256 KiB |   ...   | short last one |
    leaves   | BLAKE3  | BLAKE3  |         | BLAKE3         |    32 bytes each
    digest   BLAKE3( length of the image as 8 bytes little-endian, leaf 0, leaf 1, ... )

A hole reads as zeros, and the hash of a leaf of zeros is known, so a sparse disk of 100 GiB is
hashed in milliseconds. A leaf's hash also shows whether it is all zeros. In a repository it is the
chunk's id. So an image's digest follows from its map, even if most of the image was not read.
Streams compute it in order; docs/reference/formats.md describes the format.
"""

from typing import Final

from blake3 import blake3

from virtbackup_async.errors import CorruptError

LEAF_BYTES: Final = 256 * 1024
PREFIX: Final = "blake3-256k:"
_LEAVES_AT_ONCE: Final = 4096
# No image is longer. Lengths that files claim are checked before they are used.
MAX_IMAGE_BYTES: Final = 1 << 50


class LengthError(CorruptError):
    """A length that no image can have."""


def check_length(size_bytes: int) -> None:
    """Check that an image can be that long.

    Raises:
        LengthError: it cannot: hashing a petabyte of zeros alone takes half a minute.
    """
    if not 0 <= size_bytes <= MAX_IMAGE_BYTES:
        raise LengthError(f"it says that its image is {size_bytes} bytes long")


def leaf_of(data: memoryview | bytes) -> bytes:
    """Return the hash of one leaf: 32 bytes."""
    return blake3(data).digest()


_ZERO_LEAF: Final = leaf_of(bytes(LEAF_BYTES))
_MANY_ZERO_LEAVES: Final = _ZERO_LEAF * _LEAVES_AT_ONCE


def zero_leaf_of(length_bytes: int) -> bytes:
    """Return the hash of a leaf of ``length_bytes`` zeros."""
    return _ZERO_LEAF if length_bytes == LEAF_BYTES else leaf_of(bytes(length_bytes))


class ImageDigest:
    """The digest of an image of ``size_bytes``; leaves that are not added count as zeros.

    Blocks for some milliseconds for each TiB of holes.
    """

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._next_leaf = 0
        self._hash = blake3(size_bytes.to_bytes(8, "little"))

    def add(self, offset: int, leaves: bytes) -> None:
        """Add the hashes of the leaves from ``offset`` on, concatenated; offsets ascend."""
        self._add_zeros_up_to(offset // LEAF_BYTES)
        self._hash.update(leaves)
        self._next_leaf += len(leaves) // len(_ZERO_LEAF)

    def finish(self) -> str:
        """Return the digest as text, ``blake3-256k:<64 hex>``."""
        whole, rest = divmod(self._size_bytes, LEAF_BYTES)
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

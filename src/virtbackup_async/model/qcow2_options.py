"""How a qcow2 image is laid out: what one that takes its place should have as well."""

from typing import Final

from msgspec import Struct

_VERSION: Final = 3
_CLUSTER_BITS: Final = 16
_LEAST_CLUSTER_BITS: Final = 9
_LEAST_EXTENDED: Final = 14
_MOST_CLUSTER_BITS: Final = 21


class Qcow2Options(Struct, frozen=True, gc=False):
    """How an image is laid out; by default as ``qemu-img create`` does it.

    Attributes:
        version: 2 (``compat=0.10``) or 3.
        cluster_bits: 16 for clusters of 64 KiB.
        lazy_refcounts: QEMU writes reference counts late, and counts anew after a crash.
        extended_l2: each cluster has 32 parts of its own.
    """

    version: int = _VERSION
    cluster_bits: int = _CLUSTER_BITS
    lazy_refcounts: bool = False
    extended_l2: bool = False

    @property
    def can_be_written(self) -> bool:
        """Whether there are such images: a header may say anything."""
        least = _LEAST_EXTENDED if self.extended_l2 else _LEAST_CLUSTER_BITS
        return self.version in (2, _VERSION) and least <= self.cluster_bits <= _MOST_CLUSTER_BITS

    @property
    def cluster(self) -> int:
        """The bytes of a cluster."""
        return 1 << self.cluster_bits

    @property
    def table_entries(self) -> int:
        """How many clusters an L2 table tells of."""
        return self.cluster // (16 if self.extended_l2 else 8)

    @property
    def counts_a_block(self) -> int:
        """How many clusters a refcount block counts, by two bytes each."""
        return self.cluster // 2

"""A run of bytes of an image."""

from msgspec import Struct


class Extent(Struct, frozen=True):
    """``length`` bytes from ``start`` on; ``zero`` if they all read as zero (a hole, mostly)."""

    start: int
    length: int
    zero: bool = False

    @property
    def end(self) -> int:
        """The first byte behind the extent."""
        return self.start + self.length

"""A run of bytes of an image."""

from msgspec import Struct


class Extent(Struct, frozen=True):
    """``length`` bytes from ``start`` on."""

    start: int
    length: int

    @property
    def end(self) -> int:
        """The first byte behind the extent."""
        return self.start + self.length

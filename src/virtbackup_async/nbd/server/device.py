"""What the server needs of a device: ranges to read and to write, and where data is.

Whoever has the bytes implements it; tasks of all clients call it at once, for ranges inside the
device that are not empty.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from virtbackup_async.model.extent import Extent
from virtbackup_async.nbd.protocol.offer import Offered


class Device(Protocol):
    """A device that can be read anywhere.

    Errors of ``errors.py`` and ``OSError`` go to the client that asked, as an I/O error.
    """

    @property
    def size_bytes(self) -> int: ...

    async def read(self, offset: int, length: int) -> bytes:
        """Return a range's bytes."""
        ...

    async def data_in(self, offset: int, length: int, most: int) -> Sequence[Extent]:
        """Return the parts of a range that can hold data, ascending, inside of it; or the first.

        At most ``most + 1``; so many mean that the rest of the range is not known. All other bytes
        read as zeros.
        """
        ...


@runtime_checkable
class WritableDevice(Device, Protocol):
    """A device that can be changed. What is written is read by all clients at once."""

    async def write(self, offset: int, data: bytes) -> None:
        """Write bytes; durable after the next ``flush``."""
        ...

    async def write_zeroes(self, offset: int, length: int) -> None:
        """Make a range read as zeros."""
        ...

    async def flush(self) -> None:
        """Make all writes that have returned durable."""
        ...


class Export(Protocol):
    """A device, and how clients see it."""

    @property
    def device(self) -> Device: ...
    @property
    def offered(self) -> Offered: ...


class OnFailure(Protocol):
    """Called with each range that a device could not read or write."""

    def __call__(self, export: str, offset: int, length: int, error: Exception, /) -> None: ...

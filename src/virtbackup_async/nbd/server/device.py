"""What the server needs of a device: ranges to read and to write, and where data is.

Whoever has the bytes implements it; tasks of all clients call it at once, for ranges inside the
device that are not empty.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

from msgspec import Struct

from virtbackup_async.model.extent import Extent
from virtbackup_async.nbd.protocol.offer import Offered


class DataMap(Struct, frozen=True):
    """Where data is, in a range or its beginning.

    Attributes:
        data: the parts that can hold data, ascending; all other bytes read as zeros.
        end: the first byte of which nothing is known: the range's end, or before it.
    """

    data: Sequence[Extent]
    end: int


def data_map(offset: int, length: int, data: Iterable[Extent], most: int) -> DataMap:
    """Return the map of a range by the extents in it, of which ``most`` fit.

    Args:
        offset: where the range begins.
        length: its length.
        data: extents that ascend; they may reach out of the range.
        most: the most to take, at least one.
    """
    end = offset + length
    found: list[Extent] = []
    for extent in data:
        start, stop = max(extent.start, offset), min(extent.end, end)
        if start >= end:
            break
        if start >= stop:
            continue
        if found and found[-1].end == start:
            found[-1] = Extent(found[-1].start, stop - found[-1].start)
        elif len(found) == most:
            return DataMap(found, start)
        else:
            found.append(Extent(start, stop - start))
    return DataMap(found, end)


class Device(Protocol):
    """A device that can be read anywhere.

    Errors of ``errors.py`` and ``OSError`` go to the client that asked, as an I/O error.
    """

    @property
    def size_bytes(self) -> int: ...

    async def read(self, offset: int, length: int) -> bytes:
        """Return a range's bytes."""
        ...

    async def data_in(self, offset: int, length: int, most: int) -> "DataMap":
        """Return which parts of a range can hold data, at most ``most`` of them."""
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

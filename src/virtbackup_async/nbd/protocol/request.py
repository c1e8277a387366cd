"""One request, from its bytes on the wire to the server's reply.

``connection`` makes it, ``replies`` fills it. Invariant: a read that ends without an error has
received each of its bytes exactly once; otherwise the server broke the protocol.
"""

import os
import struct
from bisect import bisect
from typing import Final

from msgspec import Struct, field

from virtbackup_async import errors
from virtbackup_async.model.amounts import size
from virtbackup_async.nbd.protocol.constants import ESHUTDOWN, REQUEST_MAGIC, Command

_HEADER: Final = struct.Struct(">IHHQQI")

Descriptors = tuple[tuple[int, int], ...]
"""Lengths in bytes, each with the flags of a meta context."""


class Request(Struct, eq=False):
    """A request and its reply.

    Attributes:
        target: the memory for a read's data; None once no task waits for it any more.
        error: the first error that the server reported; None if there is none so far.
        statuses: for a block status, by the number of the meta context.
    """

    command: Command
    cookie: int
    offset: int
    length: int
    target: memoryview | None = None
    flags: int = 0
    error: errors.NbdError | None = None
    statuses: dict[int, Descriptors] = field(default_factory=dict)
    _covered: list[tuple[int, int]] = field(default_factory=list)

    @property
    def header(self) -> bytes:
        """The request as it goes over the wire, without the data of a write."""
        return _HEADER.pack(
            REQUEST_MAGIC, self.flags, self.command, self.cookie, self.offset, self.length
        )

    @property
    def is_covered(self) -> bool:
        """Whether all bytes of a read have arrived."""
        return self._covered == [(self.offset, self.offset + self.length)]

    def cover(self, start: int, length: int) -> None:
        """Record that ``length`` bytes have arrived, from the offset ``start`` of the export.

        Raises:
            NbdProtocolError: they were not requested, or arrived before.
        """
        end = start + length
        if not (self.offset <= start < end <= self.offset + self.length):
            raise errors.NbdProtocolError(
                f"the server sent bytes {start} to {end}, which were not requested"
            )
        place = bisect(self._covered, (start, end))
        first = place
        if place > 0 and self._covered[place - 1][1] >= start:
            first = place - 1
        last = place
        if place < len(self._covered) and self._covered[place][0] <= end:
            last = place + 1
        merged = (start, end)
        if first < last:
            touched = self._covered[first:last]
            merged = (min(start, touched[0][0]), max(end, touched[-1][1]))
            if merged[1] - merged[0] != length + sum(e - s for s, e in touched):
                raise errors.NbdProtocolError(f"the server sent bytes {start} to {end} twice")
        self._covered[first:last] = [merged]

    def part(self, start: int, length: int) -> memoryview | None:
        """Return the part of the target for a range of the export."""
        if self.target is None:
            return None
        begin = start - self.offset
        return self.target[begin : begin + length]

    def fail(self, errno: int, said: str) -> None:
        """Record the server's error, unless there is an earlier one."""
        if self.error is not None:
            return
        if errno == ESHUTDOWN:
            self.error = errors.NbdConnectionError("the server is shutting down")
            return
        what = f"{self.command.name.lower().replace('_', ' ')} of {size(self.length)}"
        why = f"{os.strerror(errno)} ({said})" if said else os.strerror(errno)
        self.error = errors.NbdRequestError(
            f"{what} at byte {self.offset} failed: {why}",
            errno=errno,
            hint="Check the server's storage: its log and `dmesg` say more.",
        )

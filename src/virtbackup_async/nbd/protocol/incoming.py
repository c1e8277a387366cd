"""A client's requests, as the server reads them; ``request`` is the client's side.

Every request is a header of 28 bytes; only a write is followed by data, as long as the header
says::

    magic flags command cookie offset length

``parse`` understands the header, or ends the connection; ``fault_of`` says whether the export can
do what it asks for. A faulty request costs the client an error, and its data is discarded, so the
connection goes on.

Specification: "Transmission phase", "Request message".
"""

import errno
import struct
from typing import Final

from msgspec import Struct

from virtbackup_async.errors import NbdProtocolError
from virtbackup_async.nbd.protocol.constants import (
    COMMAND_FLAG_FUA,
    COMMAND_FLAG_NO_HOLE,
    COMMAND_FLAG_REQ_ONE,
    MAX_REQUEST_BYTES,
    REQUEST_MAGIC,
    Command,
    ExportFlag,
)

_HEADER: Final = struct.Struct(">IHHQQI")
HEADER_BYTES: Final = _HEADER.size
_COMMANDS: Final = {command.value: command for command in Command}
_FLAGS: Final = {
    Command.WRITE_ZEROES: COMMAND_FLAG_FUA | COMMAND_FLAG_NO_HOLE,
    Command.BLOCK_STATUS: COMMAND_FLAG_FUA | COMMAND_FLAG_REQ_ONE,
}
_NEEDED: Final = {
    Command.FLUSH: ExportFlag.SEND_FLUSH,
    Command.TRIM: ExportFlag.SEND_TRIM,
    Command.WRITE_ZEROES: ExportFlag.SEND_WRITE_ZEROES,
}
_CHANGING: Final = frozenset({Command.WRITE, Command.TRIM, Command.WRITE_ZEROES})


class Incoming(Struct, frozen=True):
    """A request; ``command`` is None if the server knows no such command."""

    command: Command | None
    flags: int
    cookie: int
    offset: int
    length: int

    @property
    def data_bytes(self) -> int:
        """How many bytes of data follow the header."""
        return self.length if self.command is Command.WRITE else 0

    @property
    def is_durable(self) -> bool:
        """Whether the reply must wait until the change is durable."""
        return bool(self.flags & COMMAND_FLAG_FUA)

    @property
    def wants_one(self) -> bool:
        """Whether a block status is to have one descriptor only."""
        return bool(self.flags & COMMAND_FLAG_REQ_ONE)


class Fault(Struct, frozen=True):
    """Why a request is refused."""

    errno: int
    reason: str


def parse(header: bytes) -> Incoming:
    """Understand the header of a request.

    Raises:
        NbdProtocolError: it is none, or more data follows than any request may have.
    """
    magic, flags, number, cookie, offset, length = _HEADER.unpack(header)
    if magic != REQUEST_MAGIC:
        raise NbdProtocolError(f"the client began a request with {magic:#010x}")
    request = Incoming(_COMMANDS.get(number), flags, cookie, offset, length)
    if request.data_bytes > MAX_REQUEST_BYTES:
        raise NbdProtocolError(f"the client writes {length} bytes in one request")
    return request


def fault_of(
    request: Incoming, size_bytes: int, flags: ExportFlag, *, reports_allocation: bool
) -> Fault | None:
    """Return why an export cannot do what is asked; None if it can."""
    command = request.command
    if command is None:
        return Fault(errno.EINVAL, "unknown command")
    if command in _CHANGING and ExportFlag.READ_ONLY in flags:
        return Fault(errno.EPERM, "the export is read-only")
    is_allowed = _NEEDED.get(command, ExportFlag.HAS_FLAGS) in flags
    if not is_allowed or request.flags & ~_FLAGS.get(command, COMMAND_FLAG_FUA):
        return Fault(errno.EINVAL, "the export takes no such command, or not with these flags")
    if command is Command.BLOCK_STATUS and not reports_allocation:
        return Fault(errno.EINVAL, "no context was negotiated")
    return None if command is Command.FLUSH else _fault_of_range(request, size_bytes)


def _fault_of_range(request: Incoming, size_bytes: int) -> Fault | None:
    is_outside = request.offset + request.length > size_bytes
    if is_outside:
        number = errno.ENOSPC if request.command is Command.WRITE else errno.EINVAL
        return Fault(number, "beyond the end of the export")
    if not request.length:
        return Fault(errno.EINVAL, "no bytes")
    if request.command is Command.READ and request.length > MAX_REQUEST_BYTES:
        return Fault(errno.EINVAL, "too many bytes in one request")
    return None

"""An export of an NBD server, over one or several connections.

Any number of tasks can call it at the same time. Each call is one request to the server, or several
in a row if it is larger than the server's limit.
"""

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from virtbackup_async.errors import NbdProtocolError, NbdRefusedError
from virtbackup_async.nbd.client.connection import Connection, open_connection
from virtbackup_async.nbd.protocol.constants import (
    COMMAND_FLAG_NO_HOLE,
    MAX_STATUS_REQUEST_BYTES,
    OPEN_TIMEOUT_S,
    SILENCE_TIMEOUT_S,
    Command,
    ExportFlag,
)
from virtbackup_async.nbd.protocol.export import Address, Export, Tls
from virtbackup_async.nbd.protocol.request import Descriptors


class NbdClient:
    """An open export; ``open_nbd`` makes it."""

    def __init__(self, connections: Sequence[Connection]) -> None:
        self.export: Export = connections[0].export
        self._connections = connections

    async def read_into(self, offset: int, target: memoryview) -> None:
        """Fill ``target`` with the export's bytes, starting at ``offset``.

        Raises:
            NbdError: see ``Connection.request``; the content of ``target`` is undefined.
        """
        for start, length in self._pieces(offset, len(target)):
            part = target[start - offset : start - offset + length]
            await self._idlest().request(Command.READ, start, length, target=part)

    async def write(self, offset: int, data: bytes | memoryview) -> None:
        """Write ``data``; durable after the next ``flush``."""
        self._check_writable(ExportFlag.HAS_FLAGS, "writes")
        view = memoryview(data)
        for start, length in self._pieces(offset, len(view)):
            part = bytes(view[start - offset : start - offset + length])
            await self._idlest().request(Command.WRITE, start, length, data=part)

    async def write_zeroes(self, offset: int, length: int, *, keep_allocated: bool = False) -> None:
        """Make a range read as zeros; it can become a hole unless ``keep_allocated``."""
        self._check_writable(ExportFlag.SEND_WRITE_ZEROES, "zeroes")
        flags = COMMAND_FLAG_NO_HOLE if keep_allocated else 0
        for start, part in self._pieces(offset, length):
            await self._idlest().request(Command.WRITE_ZEROES, start, part, flags=flags)

    async def trim(self, offset: int, length: int) -> None:
        """Give a range up: the server can free its space, and its content is undefined."""
        self._check_writable(ExportFlag.SEND_TRIM, "trims")
        for start, part in self._pieces(offset, length):
            await self._idlest().request(Command.TRIM, start, part)

    async def flush(self) -> None:
        """Make all writes that have returned durable.

        There are several connections only if one flush counts for all of them.
        """
        self._check(ExportFlag.SEND_FLUSH, "flushes")
        await self._connections[0].request(Command.FLUSH)

    async def block_status(self, offset: int, length: int) -> dict[str, Descriptors]:
        """Ask for the block status of a range, once.

        The reply can end early, for each context at another offset; ``walk_status`` asks again
        until it has everything.

        Returns:
            By the name of each granted meta context, lengths in bytes and their flags.
        """
        if not self.export.contexts:
            raise NbdRefusedError("the server reports no block status")
        connection = self._idlest()
        request = await connection.request(
            Command.BLOCK_STATUS, offset, min(length, MAX_STATUS_REQUEST_BYTES)
        )
        contexts = connection.export.contexts
        return {contexts[number]: found for number, found in request.statuses.items()}

    def _idlest(self) -> Connection:
        return min(self._connections, key=lambda connection: connection.in_flight)

    def _pieces(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """Split a range into the lengths that the server accepts in one request."""
        largest = self.export.block_sizes.maximum
        for start in range(offset, offset + length, largest):
            yield start, min(largest, offset + length - start)

    def _check_writable(self, flag: ExportFlag, what: str) -> None:
        if ExportFlag.READ_ONLY in self.export.flags:
            raise NbdRefusedError(f"the export {self.export.name!r} is read-only")
        self._check(flag, what)

    def _check(self, flag: ExportFlag, what: str) -> None:
        if flag not in self.export.flags:
            raise NbdRefusedError(f"the export {self.export.name!r} takes no {what}")


@asynccontextmanager
async def open_nbd(  # noqa: PLR0913 -- the address, and all by keyword
    address: Address,
    *,
    name: str = "",
    contexts: Sequence[str] = (),
    tls: Tls | None = None,
    connections: int = 1,
    timeout_s: float = OPEN_TIMEOUT_S,
    silence_s: float = SILENCE_TIMEOUT_S,
) -> AsyncGenerator[NbdClient]:
    """Open an export.

    Args:
        address: where the server listens.
        name: the export's name; empty for the server's default export.
        contexts: meta contexts, such as ``base:allocation``; ``export.contexts`` has those granted.
        tls: encryption. With it, a server that offers none is refused; without it, one that
            requires it is.
        connections: the most to open; more than one only if the server reports that all of them
            show the same data and that one flush counts for all.
        timeout_s: the limit for opening each of them.
        silence_s: for how long the server can move no byte while requests are in flight, before
            all of them fail. As long as it moves bytes, there is no limit.

    Raises:
        NbdConnectionError: the server cannot be reached, or does not answer in time.
        NbdRefusedError: it has no such export, or requires or lacks encryption.
        NbdProtocolError: it breaks the protocol.
    """
    async with AsyncExitStack() as stack:
        opened: list[Connection] = []
        wanted = connections
        while len(opened) < wanted:
            connection = await stack.enter_async_context(
                open_connection(
                    address, name, contexts, tls=tls, timeout_s=timeout_s, silence_s=silence_s
                )
            )
            opened.append(connection)
            if ExportFlag.CAN_MULTI_CONN not in connection.export.flags:
                wanted = 1
            if not _is_same(connection.export, opened[0].export):
                raise NbdProtocolError(
                    f"NBD server {address} exports something else on each connection"
                )
        yield NbdClient(opened)


def _is_same(one: Export, other: Export) -> bool:
    return (one.size_bytes, one.flags, set(one.contexts.values())) == (
        other.size_bytes,
        other.flags,
        set(other.contexts.values()),
    )

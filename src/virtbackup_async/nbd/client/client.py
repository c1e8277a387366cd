"""An export of an NBD server, over one or several connections.

Invariant: the calls may be made by any number of tasks at once, each is one request to the server
(or several, one after the other, where it is larger than the server takes).
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
    """An open export. Made by ``open_nbd``."""

    def __init__(self, connections: Sequence[Connection]) -> None:
        self.export: Export = connections[0].export
        self._connections = connections

    async def read_into(self, offset: int, target: memoryview) -> None:
        """Fill ``target`` with the export's bytes from ``offset`` on.

        Raises:
            NbdError: see ``Connection.request``; what is in ``target`` is undefined.
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
        """Make bytes read as zeros; they may become a hole unless ``keep_allocated``."""
        self._check_writable(ExportFlag.SEND_WRITE_ZEROES, "zeroes")
        flags = COMMAND_FLAG_NO_HOLE if keep_allocated else 0
        for start, part in self._pieces(offset, length):
            await self._idlest().request(Command.WRITE_ZEROES, start, part, flags=flags)

    async def trim(self, offset: int, length: int) -> None:
        """Tell the server that bytes are not needed any more; what they read as is undefined."""
        self._check_writable(ExportFlag.SEND_TRIM, "trims")
        for start, part in self._pieces(offset, length):
            await self._idlest().request(Command.TRIM, start, part)

    async def flush(self) -> None:
        """Make all writes durable that have returned.

        Several connections are only opened where one flush counts for all of them.
        """
        self._check(ExportFlag.SEND_FLUSH, "flushes")
        await self._connections[0].request(Command.FLUSH)

    async def block_status(self, offset: int, length: int) -> dict[str, Descriptors]:
        """Ask what the bytes are, once; the answer may end early, for each context elsewhere.

        ``walk_status`` asks until it knows all.

        Returns:
            By the name of each granted meta context, lengths in bytes and their flags.
        """
        if not self.export.contexts:
            raise NbdRefusedError("the server tells nothing of block status")
        connection = self._idlest()
        request = await connection.request(
            Command.BLOCK_STATUS, offset, min(length, MAX_STATUS_REQUEST_BYTES)
        )
        contexts = connection.export.contexts
        return {contexts[number]: found for number, found in request.statuses.items()}

    def _idlest(self) -> Connection:
        return min(self._connections, key=lambda connection: connection.in_flight)

    def _pieces(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """Cut a range along what the server takes in one request."""
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
        name: of the export; empty for the server's default one.
        contexts: meta contexts, as ``base:allocation``; ``export.contexts`` holds those granted.
        tls: encryption; without it the server must not want any, with it the server must.
        connections: how many at the most; more than one only if the server says that they show
            the same data and that one flush counts for all.
        timeout_s: how long each of them may take to be opened.
        silence_s: how long the server may move no byte while requests are on their way; then all
            of them fail. As long as it moves any, they take what they take.

    Raises:
        NbdConnectionError: the server cannot be reached, or does not answer in time.
        NbdRefusedError: it has no such export, or wants or lacks encryption.
        NbdProtocolError: it does not speak NBD as it should.
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
                raise NbdProtocolError(f"NBD server {address} exports something else each time")
        yield NbdClient(opened)


def _is_same(one: Export, other: Export) -> bool:
    return (one.size_bytes, one.flags, set(one.contexts.values())) == (
        other.size_bytes,
        other.flags,
        set(other.contexts.values()),
    )

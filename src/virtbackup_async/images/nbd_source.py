"""What an NBD server exports, as a disk stream: what a backup job of QEMU serves.

The stream reads in a worker thread; each read is carried out on the event loop, cut into requests
that are on their way together.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

from anyio import CancelScope, create_task_group, from_thread
from msgspec import Struct

from virtbackup_async.errors import NbdConnectionError, NbdError
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.extents import bounded, common
from virtbackup_async.images.rate_limit import RateLimit
from virtbackup_async.images.stream import DiskStream, open_stream
from virtbackup_async.model.extent import Extent
from virtbackup_async.nbd import Address, NbdClient, open_nbd, walk_status
from virtbackup_async.nbd.constants import (
    BASE_ALLOCATION,
    DIRTY_BITMAP_PREFIX,
    STATE_DIRTY,
    STATE_ZERO,
)

# Of a buffer of 4 MiB, four are on their way together: docs/nbd.md has the figures.
_REQUEST_BYTES: Final = 1024 * 1024
_EXTENTS_AT_ONCE: Final = 4096


@asynccontextmanager
async def open_nbd_stream(
    address: Address, name: str, buffers: BufferPool, *, limits: Sequence[RateLimit] = ()
) -> AsyncGenerator[DiskStream]:
    """Stream the export called ``name``, as fast as the limits let it.

    Raises:
        NbdError: it cannot be opened; a later failure is raised by the stream.
    """
    async with open_nbd(address, name=name, contexts=[BASE_ALLOCATION]) as client:
        reader = NbdReader(client, await _data_extents(client))
        async with open_read_stream(reader, buffers, name, limits) as stream:
            yield stream


class ChangedImage(Struct):
    """An open export, and what of it changed since an earlier moment.

    Attributes:
        size_bytes: its length.
        changed: what may differ from what it was then, zeros included.
        data_extents: what is not zeros now; None where the server does not tell.
    """

    size_bytes: int
    changed: tuple[Extent, ...]
    data_extents: tuple[Extent, ...] | None
    _client: NbdClient
    _name: str
    _buffers: BufferPool
    _limits: Sequence[RateLimit]

    def open_parts(self, parts: Sequence[Extent]) -> AbstractAsyncContextManager[DiskStream]:
        """Stream some parts of it. All else counts as a hole, in the stream's digest as well."""
        data = tuple(parts if self.data_extents is None else common(parts, self.data_extents))
        reader = NbdReader(self._client, data)
        return open_read_stream(reader, self._buffers, self._name, self._limits)

    def open_all(self) -> AbstractAsyncContextManager[DiskStream]:
        """Stream the whole of it, as ``open_nbd_stream`` does."""
        reader = NbdReader(self._client, self.data_extents)
        return open_read_stream(reader, self._buffers, self._name, self._limits)


@asynccontextmanager
async def open_nbd_changes(
    address: Address,
    name: str,
    bitmap: str,
    buffers: BufferPool,
    *,
    limits: Sequence[RateLimit] = (),
) -> AsyncGenerator[ChangedImage]:
    """Open the export called ``name``, and ask for its changes by the dirty bitmap beside it.

    Raises:
        NbdError: it cannot be opened, or does not tell of changes.
    """
    contexts = [BASE_ALLOCATION, DIRTY_BITMAP_PREFIX + bitmap]
    async with open_nbd(address, name=name, contexts=contexts) as client:
        changed = await _extents(client, contexts[1], lambda flags: bool(flags & STATE_DIRTY))
        data = await _data_extents(client)
        size_bytes = client.export.size_bytes
        yield ChangedImage(size_bytes, changed, data, client, name, buffers, limits)


@asynccontextmanager
async def open_read_stream(
    reader: "NbdReader", buffers: BufferPool, name: str, limits: Sequence[RateLimit]
) -> AsyncGenerator[DiskStream]:
    """Stream what is read; when the block is left, no read is waited for any more."""
    async with open_stream(reader, buffers, name, limits=limits) as stream:
        try:
            yield stream
        finally:
            reader.give_up()


class NbdReader:
    """An ``ImageReader`` over an open export; ``data_extents`` None where it tells none."""

    def __init__(self, client: NbdClient, data_extents: tuple[Extent, ...] | None) -> None:
        self.size_bytes = client.export.size_bytes
        self.data_extents = data_extents
        self._client = client
        self._scope = CancelScope()
        self._is_given_up = False

    def read(self, offset: int, target: memoryview) -> None:
        from_thread.run(self._read, offset, target)

    def give_up(self) -> None:
        """Let the read that is under way, and all later ones, fail at once."""
        self._is_given_up = True
        self._scope.cancel()

    async def _read(self, offset: int, target: memoryview) -> None:
        # Shielded: a task that comes from a thread into a scope that was cancelled before gets no
        # cancellation from anyio (4.16), and its semaphores look for one for ever.
        with CancelScope(shield=True) as self._scope:
            if not self._is_given_up:
                await self._read_parts(offset, target)
        if self._is_given_up:
            raise NbdConnectionError("the read was given up")

    async def _read_parts(self, offset: int, target: memoryview) -> None:
        failures: list[NbdError] = []

        async def read_part(start: int) -> None:
            part = target[start : start + _REQUEST_BYTES]
            try:
                await self._client.read_into(offset + start, part)
            except NbdError as error:
                failures.append(error)

        async with create_task_group() as parts:
            for start in range(0, len(target), _REQUEST_BYTES):
                parts.start_soon(read_part, start, name=f"read at {offset + start}")
        if failures:
            raise failures[0]


async def _data_extents(client: NbdClient) -> tuple[Extent, ...] | None:
    """Ask which parts are not zeros."""
    if BASE_ALLOCATION not in client.export.contexts.values():
        return None
    return await _extents(client, BASE_ALLOCATION, lambda flags: not flags & STATE_ZERO)


async def _extents(
    client: NbdClient, context: str, counts: Callable[[int], bool]
) -> tuple[Extent, ...]:
    """Ask for the parts whose flags count in a context."""
    found: tuple[Extent, ...] = ()
    async for batch in _batches(client, context, counts):
        found = bounded((*found, *batch))
    return found


async def _batches(
    client: NbdClient, context: str, counts: Callable[[int], bool]
) -> AsyncIterator[list[Extent]]:
    batch: list[Extent] = []
    async for run in walk_status(client, [context]):
        if counts(run.flags[0]):
            batch.append(Extent(run.start, run.length))
        if len(batch) == _EXTENTS_AT_ONCE:
            yield batch
            batch = []
    yield batch

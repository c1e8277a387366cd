"""An export of an NBD server, for example of a pull job of QEMU, as a disk stream.

The stream reads in a worker thread. The event loop sends the requests that fill one buffer, all in
flight together, however far apart their offsets are.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

from anyio import CancelScope, create_task_group, from_thread
from msgspec import Struct

from virtbackup_async.errors import NbdConnectionError, NbdError
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.extents import bounded, common
from virtbackup_async.images.pieces import Wanted
from virtbackup_async.images.stream import DiskStream, RateLimit, open_stream
from virtbackup_async.model.extent import Extent
from virtbackup_async.nbd import Address, NbdClient, StatusRun, open_nbd, walk_status
from virtbackup_async.nbd.protocol.constants import (
    BASE_ALLOCATION,
    DIRTY_BITMAP_PREFIX,
    STATE_DIRTY,
    STATE_ZERO,
)

# A buffer of 4 MiB needs at least four, all in flight together; docs/reference/nbd.md has figures.
_REQUEST_BYTES: Final = 1024 * 1024
_EXTENTS_AT_ONCE: Final = 4096


@asynccontextmanager
async def open_nbd_stream(
    address: Address, name: str, buffers: BufferPool, *, limits: Sequence[RateLimit] = ()
) -> AsyncGenerator[DiskStream]:
    """Stream the export called ``name``, within the limits.

    Raises:
        NbdError: it cannot be opened; the stream raises later failures.
    """
    async with open_nbd(address, name=name, contexts=[BASE_ALLOCATION]) as client:
        data, _ = await _extents(client)
        reader = NbdReader(client, data)
        async with open_read_stream(reader, buffers, name, limits) as stream:
            yield stream


class ChangedImage(Struct):
    """An open export, and its changes since a checkpoint.

    Attributes:
        size_bytes: its length.
        changed: the extents that can differ from then, including those that are zeros now.
        data_extents: the extents that are not zeros; None if the server does not report them.
    """

    size_bytes: int
    changed: tuple[Extent, ...]
    data_extents: tuple[Extent, ...] | None
    _client: NbdClient
    _name: str
    _buffers: BufferPool
    _limits: Sequence[RateLimit]

    def open_parts(self, parts: Sequence[Extent]) -> AbstractAsyncContextManager[DiskStream]:
        """Stream some parts. The rest counts as a hole, also in the stream's digest."""
        data = tuple(parts if self.data_extents is None else common(parts, self.data_extents))
        reader = NbdReader(self._client, data)
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
    """Open the export called ``name``, and read its changes from the dirty bitmap exported with it.

    Raises:
        NbdError: it cannot be opened, or does not report changes.
    """
    context = DIRTY_BITMAP_PREFIX + bitmap
    async with open_nbd(address, name=name, contexts=[BASE_ALLOCATION, context]) as client:
        data, changed = await _extents(client, context)
        size_bytes = client.export.size_bytes
        yield ChangedImage(size_bytes, changed, data, client, name, buffers, limits)


@asynccontextmanager
async def open_read_stream(
    reader: "NbdReader", buffers: BufferPool, name: str, limits: Sequence[RateLimit]
) -> AsyncGenerator[DiskStream]:
    """Stream the reader's data; when the block is left, pending reads are given up."""
    async with open_stream(reader, buffers, name, limits=limits) as stream:
        try:
            yield stream
        finally:
            reader.give_up()


class NbdReader:
    """An ``ImageReader`` over an open export; ``data_extents`` None if they are unknown."""

    def __init__(self, client: NbdClient, data_extents: tuple[Extent, ...] | None) -> None:
        self.size_bytes = client.export.size_bytes
        self.data_extents = data_extents
        self._client = client
        self._scope = CancelScope()
        self._is_given_up = False

    def read(self, wanted: Sequence[Wanted]) -> None:
        from_thread.run(self._read, wanted)

    def give_up(self) -> None:
        """Let the current read and all later ones fail at once."""
        self._is_given_up = True
        self._scope.cancel()

    async def _read(self, wanted: Sequence[Wanted]) -> None:
        # Shielded, because anyio (4.16) does not cancel a task that a thread starts in a scope that
        # is already cancelled, and its semaphores would wait for the cancellation for ever.
        with CancelScope(shield=True) as self._scope:
            if not self._is_given_up:
                await self._read_parts(wanted)
        if self._is_given_up:
            raise NbdConnectionError("the read was given up")

    async def _read_parts(self, wanted: Sequence[Wanted]) -> None:
        failures: list[NbdError] = []

        async def read_part(offset: int, part: memoryview) -> None:
            try:
                await self._client.read_into(offset, part)
            except NbdError as error:
                failures.append(error)

        async with create_task_group() as parts:
            for offset, target in wanted:
                for start in range(0, len(target), _REQUEST_BYTES):
                    part = target[start : start + _REQUEST_BYTES]
                    parts.start_soon(read_part, offset + start, part, name=f"read at {offset}")
        if failures:
            raise failures[0]


async def _extents(
    client: NbdClient, bitmap: str | None = None
) -> tuple[tuple[Extent, ...] | None, tuple[Extent, ...]]:
    """Return the extents that are not zeros (None if unknown), and those that are dirty.

    One pass finds both: each reply of a server covers all contexts.
    """
    tells_data = BASE_ALLOCATION in client.export.contexts.values()
    contexts = ([BASE_ALLOCATION] if tells_data else []) + ([bitmap] if bitmap else [])
    data, dirty = _Extents(), _Extents()
    if contexts:
        async for run in walk_status(client, contexts):
            if tells_data and not run.flags[0] & STATE_ZERO:
                data.add(run)
            if bitmap and run.flags[-1] & STATE_DIRTY:
                dirty.add(run)
    return data.all() if tells_data else None, dirty.all()


class _Extents:
    """Collects extents, and joins them before they are too many."""

    def __init__(self) -> None:
        self._found: tuple[Extent, ...] = ()
        self._batch: list[Extent] = []

    def add(self, run: StatusRun) -> None:
        self._batch.append(Extent(run.start, run.length))
        if len(self._batch) == _EXTENTS_AT_ONCE:
            self.all()

    def all(self) -> tuple[Extent, ...]:
        self._found = bounded((*self._found, *self._batch))
        self._batch.clear()
        return self._found

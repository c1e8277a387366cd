"""What an NBD server exports, as a disk stream: what a backup job of QEMU serves.

The stream reads in a worker thread; what a buffer is to be filled with is asked for on the event
loop, in requests that are on their way together, however far apart they are.
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

# Of a buffer of 4 MiB, at least four are on their way together: docs/reference/nbd.md has the
# figures.
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
        data, _ = await _extents(client)
        reader = NbdReader(client, data)
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
    context = DIRTY_BITMAP_PREFIX + bitmap
    async with open_nbd(address, name=name, contexts=[BASE_ALLOCATION, context]) as client:
        data, changed = await _extents(client, context)
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

    def read(self, wanted: Sequence[Wanted]) -> None:
        from_thread.run(self._read, wanted)

    def give_up(self) -> None:
        """Let the read that is under way, and all later ones, fail at once."""
        self._is_given_up = True
        self._scope.cancel()

    async def _read(self, wanted: Sequence[Wanted]) -> None:
        # Shielded: a task that comes from a thread into a scope that was cancelled before gets no
        # cancellation from anyio (4.16), and its semaphores look for one for ever.
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
    """Ask which parts are not zeros, None where the server does not tell, and which are dirty.

    Both in one pass: a server tells of all contexts in each answer.
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
    """Extents that are gathered, and never too many."""

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

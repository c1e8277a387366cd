"""What an NBD server exports, as a disk stream: what a backup job of QEMU serves.

The stream reads in a worker thread; each read is carried out on the event loop, cut into requests
that are on their way together.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from anyio import create_task_group, from_thread

from virtbackup_async.errors import NbdError
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.extents import bounded
from virtbackup_async.images.rate_limit import RateLimit
from virtbackup_async.images.stream import DiskStream, open_stream
from virtbackup_async.model.extent import Extent
from virtbackup_async.nbd import Address, NbdClient, open_nbd, walk_status
from virtbackup_async.nbd.constants import BASE_ALLOCATION, STATE_ZERO

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
        async with open_stream(reader, buffers, name, limits=limits) as stream:
            yield stream


class NbdReader:
    """An ``ImageReader`` over an open export; ``data_extents`` None where it tells none."""

    def __init__(self, client: NbdClient, data_extents: tuple[Extent, ...] | None) -> None:
        self.size_bytes = client.export.size_bytes
        self.data_extents = data_extents
        self._client = client

    def read(self, offset: int, target: memoryview) -> None:
        from_thread.run(self._read, offset, target)

    async def _read(self, offset: int, target: memoryview) -> None:
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
    found: tuple[Extent, ...] = ()
    async for batch in _batches(client):
        found = bounded((*found, *batch))
    return found


async def _batches(client: NbdClient) -> AsyncIterator[list[Extent]]:
    batch: list[Extent] = []
    async for run in walk_status(client, [BASE_ALLOCATION]):
        if not run.flags[0] & STATE_ZERO:
            batch.append(Extent(run.start, run.length))
        if len(batch) == _EXTENTS_AT_ONCE:
            yield batch
            batch = []
    yield batch

"""A disk stream: the data of one image on its way from a source into a sink.

::

    ImageReader --read + leaf hash, worker thread--> read-ahead --> consumer: packager, sparse copy
    (file, package, NBD)                             (a few chunks, each in a buffer of the pool)

Sources open one with ``open_stream``; packagers and restore consume it. Invariants: chunks come
in ascending order, those that are all zeros do not come at all; reading starts with the first
step, so that a stream which waits for its turn holds no buffers; when the block of ``open_stream``
is left, the reading has ended and all buffers are back in the pool.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from anyio import ClosedResourceError, EndOfStream, Event, create_memory_object_stream, to_thread

from virtbackup_async.images.background import open_background
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.digest import ImageDigest, leaf_of, zero_leaf_of
from virtbackup_async.images.extents import PlannedChunk, data_length, find_data, plan_chunks
from virtbackup_async.model.extent import Extent

READ_AHEAD_CHUNKS: Final = 3


@dataclass(frozen=True, slots=True)
class Chunk:
    """A MiB of an image, or its shorter end.

    Attributes:
        offset: where in the image it starts; a multiple of ``CHUNK_BYTES``.
        data: all of it, zeros where a hole is; valid until the stream's next step.
        ranges: the parts that are not holes, at their places in the image.
    """

    offset: int
    data: memoryview
    ranges: tuple[Extent, ...]


class DiskStream(Protocol):
    """The data of one image, once.

    Attributes:
        size_bytes: the image's length, holes included.
        data_extents: what of it is not hole; None if only the reading will tell.
        data_bytes: how much data has gone by so far. Where the extents are known these count,
            zeros in them or not; else what is not zeros.
        digest: see ``digest.py``; known when the last chunk has gone by.
    """

    @property
    def size_bytes(self) -> int: ...
    @property
    def data_extents(self) -> tuple[Extent, ...] | None: ...
    @property
    def data_bytes(self) -> int: ...
    @property
    def digest(self) -> str: ...
    def chunks(self) -> AsyncIterator[Chunk]: ...


class ImageReader(Protocol):
    """The blocking side of a source, called in worker threads, one call at a time.

    ``read`` fills ``target`` with the image's bytes from ``offset`` on, or raises an error of
    ``errors.py``. Only bytes of ``data_extents`` are asked for, all of them where it is None;
    offsets ascend.
    """

    @property
    def size_bytes(self) -> int: ...
    @property
    def data_extents(self) -> tuple[Extent, ...] | None: ...
    def read(self, offset: int, target: memoryview) -> None: ...


@asynccontextmanager
async def open_stream(
    reader: ImageReader, buffers: BufferPool, name: str
) -> AsyncIterator[DiskStream]:
    """Read ``reader`` ahead of the consumer; ``name`` names the task."""
    stream = _ReadAheadStream(reader, buffers)
    try:
        async with open_background() as tasks:
            tasks.start_soon(stream.read_ahead, name=f"read {name}")
            yield stream
    finally:
        stream.close()


class _ReadAheadStream:
    def __init__(self, reader: ImageReader, buffers: BufferPool) -> None:
        self.size_bytes = reader.size_bytes
        self.data_extents = reader.data_extents
        self.data_bytes = 0
        self._data_bytes_at_end = 0
        self._reader = reader
        self._buffers = buffers
        self._held: list[bytearray] = []
        self._current: bytearray | None = None
        self._wanted = Event()
        self._digest = ImageDigest(reader.size_bytes)
        self._digest_text: str | None = None
        self._failure: Exception | None = None
        self._sending, self._receiving = create_memory_object_stream[tuple[Chunk, bytearray, int]](
            READ_AHEAD_CHUNKS
        )

    @property
    def digest(self) -> str:
        if self._digest_text is None:
            message = "the digest is known at the end of the stream"
            raise RuntimeError(message)
        return self._digest_text

    def chunks(self) -> AsyncIterator[Chunk]:
        return self

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self

    async def __anext__(self) -> Chunk:
        current, self._current = self._current, None
        self._give_back(current)
        self._wanted.set()
        try:
            chunk, self._current, self.data_bytes = await self._receiving.receive()
        except (EndOfStream, ClosedResourceError):
            self.data_bytes = self._data_bytes_at_end
            if self._failure is not None:
                raise self._failure from None
            raise StopAsyncIteration from None
        return chunk

    async def read_ahead(self) -> None:
        """The background task: fill buffers and queue them; its errors wait for the consumer."""
        await self._wanted.wait()
        with self._sending:
            try:
                await self._read_all()
            except Exception as error:  # noqa: BLE001 -- raised by the consumer's next step
                self._failure = error

    def close(self) -> None:
        """Give back what is still held; no task may be running any more."""
        self._sending.close()
        self._receiving.close()
        for buffer in self._held:
            self._buffers.release(buffer)
        self._held.clear()

    async def _read_all(self) -> None:
        gone_by = 0
        buffer: bytearray | None = None
        for planned in plan_chunks(self.size_bytes, self.data_extents):
            if buffer is None:
                buffer = await self._buffers.acquire()
                self._held.append(buffer)
            ranges = await to_thread.run_sync(self._fill, planned, buffer)
            gone_by += data_length(planned.ranges if self.data_extents is not None else ranges)
            if ranges:
                chunk = Chunk(planned.offset, memoryview(buffer)[: planned.length], ranges)
                await self._sending.send((chunk, buffer, gone_by))
                buffer = None
        self._give_back(buffer)
        self._data_bytes_at_end = gone_by
        self._digest_text = await to_thread.run_sync(self._digest.finish)

    def _fill(self, planned: PlannedChunk, buffer: bytearray) -> tuple[Extent, ...]:
        """Read a chunk, in a worker thread; give its data ranges, none if it is all zeros."""
        data = memoryview(buffer)[: planned.length]
        done = 0
        for extent in planned.ranges:
            start, end = extent.start - planned.offset, extent.end - planned.offset
            data[done:start] = bytes(start - done)
            self._reader.read(extent.start, data[start:end])
            done = end
        data[done:] = bytes(len(data) - done)
        leaf = leaf_of(data)
        self._digest.add(planned.offset, leaf)
        if leaf == zero_leaf_of(planned.length):
            return ()
        return planned.ranges if self.data_extents is not None else find_data(planned, buffer)

    def _give_back(self, buffer: bytearray | None) -> None:
        if buffer is not None:
            self._held.remove(buffer)
            self._buffers.release(buffer)

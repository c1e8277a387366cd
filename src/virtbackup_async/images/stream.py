"""A disk stream: the data of one image on its way from a source to a sink.

::

    ImageReader --read--> --leaf hash--> read-ahead --> consumer: packager, sparse copy
    (file, package, NBD)                 (a few buffers of the pool, with some MiBs each)

Reading and hashing run in parallel, each in its own worker thread, so storage need not wait for a
CPU. Sources call ``open_stream``; packagers and restore consume the stream.

Invariants: Pieces ascend, and leaves of zeros are left out. Reading starts with the consumer's
first step, so a stream that waits for its turn holds no buffers. When the block of ``open_stream``
is left, reading has ended and all buffers are back in the pool.

A ``RateLimit`` is shared by all streams that it limits, so many bytes a second for all together::

    time     ----|====A====|====B====|====A====|====C====|-->     A, B, C: disks, as they ask
                 now, or where the last one ends

Each read reserves the next piece of time on the line, as long as its bytes need at the limit, and
waits for its end. A disk that asks again comes after all others that asked, so disks share evenly.
The engine makes one limit for the whole run and one for each group.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Protocol

import anyio
from anyio import ClosedResourceError, EndOfStream, Event, create_memory_object_stream, to_thread
from msgspec import Struct

from virtbackup_async.concurrency import open_background
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.digest import ImageDigest
from virtbackup_async.images.extents import PlannedPiece, data_length, plan_buffers
from virtbackup_async.images.pieces import ImageReader, KnownLeaf, Piece, cut, fill, no_leaf
from virtbackup_async.model.extent import Extent

_Planned = tuple[PlannedPiece, ...]
_Filled = tuple[_Planned, memoryview]
_Hashed = tuple[tuple[Piece, ...], memoryview, int]


class RateLimit:
    """A line of time; unused time is lost, so that a pause is not followed by a flood."""

    def __init__(
        self, bytes_per_s: int, *, clock: Callable[[], float] = anyio.current_time
    ) -> None:
        self._bytes_per_s = bytes_per_s
        self._clock = clock
        self._taken_until_s = 0.0

    def reserve(self, length_bytes: int) -> float:
        """Take time on the line; give the seconds to wait for its end."""
        now_s = self._clock()
        self._taken_until_s = max(self._taken_until_s, now_s) + length_bytes / self._bytes_per_s
        return self._taken_until_s - now_s


async def keep_to(
    limits: Sequence[RateLimit],
    length_bytes: int,
    *,
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
) -> None:
    """Wait until ``length_bytes`` may be read by all the limits."""
    if limits:
        await sleep(max(limit.reserve(length_bytes) for limit in limits))


class Batch(Struct, frozen=True):
    """The pieces of one buffer.

    Attributes:
        pieces: at least one; their data is valid until it is given back, or the stream is closed.
        give_back: the consumer calls it once, or never; not after the stream is closed.
    """

    pieces: tuple[Piece, ...]
    give_back: Callable[[], None]


class DiskStream(Protocol):
    """The data of one image, which can be read once.

    Attributes:
        size_bytes: the image's length, holes included.
        data_extents: the parts that are not holes; None if only reading shows them.
        data_bytes: how much data the consumer has received. If the extents are known, all their
            bytes count; if not, all pages that are not zeros.
        digest: see ``digest.py``; known after the last piece.
        image_fd: an open file that contains the image as it is, and can be cloned in place of
            writing the pieces; None if there is no such file.
    """

    @property
    def size_bytes(self) -> int: ...
    @property
    def data_extents(self) -> tuple[Extent, ...] | None: ...
    @property
    def data_bytes(self) -> int: ...
    @property
    def digest(self) -> str: ...
    @property
    def image_fd(self) -> int | None: ...
    def pieces(self) -> AsyncIterator[Piece]:
        """Iterate over the pieces; each is valid until the next one is requested."""
        ...

    async def take(self) -> Batch | None:
        """Return the pieces of the next buffer, which the caller gives back; None at the end.

        A caller that holds a batch must not make others wait for it while it waits for the next
        one: there might be no other buffer.
        """
        ...


@asynccontextmanager
async def open_stream(  # noqa: PLR0913 -- all that describes a source
    reader: ImageReader,
    buffers: BufferPool,
    name: str,
    *,
    image_fd: int | None = None,
    limits: Sequence[RateLimit] = (),
    known_leaf: KnownLeaf = no_leaf,
) -> AsyncIterator[DiskStream]:
    """Read ``reader`` ahead of the consumer.

    Args:
        reader: the source.
        buffers: the process's pool.
        name: of the tasks.
        image_fd: see ``DiskStream``.
        limits: of the speed; shared with other streams.
        known_leaf: returns hashes that ``reader`` has computed, for sources that hash themselves.
    """
    stream = _ReadAheadStream(reader, buffers, image_fd, limits, known_leaf)
    try:
        async with open_background() as tasks:
            tasks.start_soon(stream.read_ahead, name=f"read {name}")
            tasks.start_soon(stream.hash_behind, name=f"hash {name}")
            yield stream
    finally:
        stream.close()


class _ReadAheadStream:
    def __init__(
        self,
        reader: ImageReader,
        buffers: BufferPool,
        image_fd: int | None,
        limits: Sequence[RateLimit],
        known_leaf: KnownLeaf,
    ) -> None:
        self.image_fd = image_fd
        self.size_bytes = reader.size_bytes
        self.data_extents = reader.data_extents
        self.data_bytes = 0
        self._data_bytes_at_end = 0
        self._reader = reader
        self._buffers = buffers
        self._limits = limits
        self._known_leaf = known_leaf
        # By identity: two views of equal bytes are equal.
        self._held: dict[int, memoryview] = {}
        self._current: Batch | None = None
        self._wanted = Event()
        self._digest = ImageDigest(reader.size_bytes)
        self._digest_text: str | None = None
        self._failure: Exception | None = None
        self._coming: Iterator[Piece] = iter(())
        self._read, self._unhashed = create_memory_object_stream[_Filled]()
        self._hashed, self._ready = create_memory_object_stream[_Hashed](1)

    @property
    def digest(self) -> str:
        if self._digest_text is None:
            message = "the digest is known at the end of the stream"
            raise RuntimeError(message)
        return self._digest_text

    def pieces(self) -> AsyncIterator[Piece]:
        return self

    def __aiter__(self) -> AsyncIterator[Piece]:
        return self

    async def __anext__(self) -> Piece:
        while (piece := next(self._coming, None)) is None:
            current, self._current = self._current, None
            if current is not None:
                current.give_back()
            self._current = await self.take()
            if self._current is None:
                raise StopAsyncIteration
            self._coming = iter(self._current.pieces)
        return piece

    async def take(self) -> Batch | None:
        self._wanted.set()
        try:
            pieces, buffer, self.data_bytes = await self._ready.receive()
        except (EndOfStream, ClosedResourceError):
            self.data_bytes = self._data_bytes_at_end
            if self._failure is not None:
                raise self._failure from None
            return None
        return Batch(pieces, partial(self._give_back, buffer))

    async def read_ahead(self) -> None:
        """Fill buffers, in a background task; the consumer raises its errors."""
        await self._wanted.wait()
        with self._read, self._keeping_failure():
            for planned in plan_buffers(self.size_bytes, self.data_extents):
                # Before it has a buffer, which others can use in the meantime.
                await keep_to(self._limits, _data_length(planned))
                buffer = await self._buffers.acquire()
                self._held[id(buffer)] = buffer
                await to_thread.run_sync(fill, buffer, planned, self._reader)
                await self._read.send((planned, buffer))

    async def hash_behind(self) -> None:
        """Hash the filled buffers, in a background task, and queue pieces that are not zeros."""
        with self._hashed, self._unhashed, self._keeping_failure():
            passed_bytes = 0
            async for planned, buffer in self._unhashed:
                pieces = await to_thread.run_sync(self._cut, planned, buffer)
                passed_bytes += _data_length(planned if self.data_extents is not None else pieces)
                if pieces:
                    await self._hashed.send((pieces, buffer, passed_bytes))
                else:
                    self._give_back(buffer)
            if self._failure is None:
                self._data_bytes_at_end = passed_bytes
                self._digest_text = await to_thread.run_sync(self._digest.finish)

    def close(self) -> None:
        """Release all buffers that are still held; no task can be running any more."""
        for end in (self._read, self._unhashed, self._hashed, self._ready):
            end.close()
        for buffer in self._held.values():
            self._buffers.release(buffer)
        self._held.clear()

    @contextmanager
    def _keeping_failure(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 -- raised by the consumer's next step
            self._failure = self._failure or error

    def _cut(self, planned: _Planned, buffer: memoryview) -> tuple[Piece, ...]:
        knows_holes = self.data_extents is not None
        return cut(
            buffer, planned, self._digest, knows_holes=knows_holes, known_leaf=self._known_leaf
        )

    def _give_back(self, buffer: memoryview) -> None:
        del self._held[id(buffer)]
        self._buffers.release(buffer)


def _data_length(pieces: Iterable[PlannedPiece | Piece]) -> int:
    return sum(data_length(piece.ranges) for piece in pieces)

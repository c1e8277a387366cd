"""Compression of a byte stream in segments, side by side on all cores, in order on disk.

::

    bytes in   | segment 0 | segment 1 | segment 2 | ...
    threads      compress    compress    compress          a bounded number at once
    file       [member 0][member 1][member 2]...

Each segment becomes a gzip member, a bzip2 stream, an xz stream or a run of a zstd frame. All four
allow that: whoever reads the file sees one stream. Used by the tar and zstd packagers. Invariant: a
compressor has one segment in memory, and more only while the process has some to spare; an error of
a worker is raised by the next ``write``, ``put`` or ``flush``.
"""

import bz2
import lzma
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from anyio import Event, create_memory_object_stream, to_thread
from anyio.abc import TaskGroup
from msgspec import Struct, field

from virtbackup_async.images.background import open_background
from virtbackup_async.packagers.cpu_shares import CpuShares
from virtbackup_async.packagers.gzip_member import compress_gzip
from virtbackup_async.packagers.output import OutputFile, Piece

_MIB: Final = 1024 * 1024
_USUAL_LEVEL: Final = 6


OnMember = Callable[[int, int], None]


class Method(Struct, frozen=True):
    """How a segment is compressed, how long segments are, and how many are compressed at once.

    They are short, because a reader decompresses them side by side, and many are in memory at once.
    """

    compress: Callable[[bytearray], bytes]
    segment_bytes: int
    most_at_once: int | None = None


def method_of(compression: str, level: int) -> Method:
    """The method of a tar package; level 0 is each format's usual one."""
    if compression == "gz":
        return Method(partial(compress_gzip, level or _USUAL_LEVEL), _MIB)
    if compression == "bz2":
        # One block of the format's: longer segments would not pack better.
        return Method(partial(bz2.compress, compresslevel=level or 9), (level or 9) * 100_000)
    level = level or _USUAL_LEVEL
    # A compressor needs eleven times its dictionary. One as long as the segment packs 0.4 % better.
    segment_bytes = 2 * _MIB << min(2, max(0, level - _USUAL_LEVEL))
    return Method(partial(_xz, level, segment_bytes // 2), segment_bytes)


def _xz(level: int, dictionary_bytes: int, data: bytearray) -> bytes:
    lzma2 = {"id": lzma.FILTER_LZMA2, "preset": level, "dict_size": dictionary_bytes}
    return lzma.compress(data, filters=[lzma2])


def _nobody_listens(_plain_bytes: int, _packed_bytes: int) -> None:
    """Members are not asked for."""


@asynccontextmanager
async def open_compressor(
    output: OutputFile, method: Method, cpu: CpuShares, on_member: OnMember = _nobody_listens
) -> AsyncIterator["Compressor"]:
    """Compress what is written into ``output``, with the share of ``cpu`` that there is.

    Args:
        output: where to.
        method: how.
        cpu: of the process.
        on_member: told of each member in the file, in order: the length of what is in it, and its
            own.
    """
    compressor: Compressor | None = None
    try:
        async with open_background() as tasks:
            compressor = Compressor(output, method, cpu, on_member, tasks)
            tasks.start_soon(compressor.write_in_order, name=f"write {output.path.name}")
            yield compressor
    finally:
        if compressor is not None:
            compressor.close()


class _Segment(Struct, eq=False):
    """A piece of the file: compressed from ``data``, or put there as it is."""

    is_own: bool = False
    is_spare: bool = False
    data: bytearray = field(default_factory=bytearray)
    plain_bytes: int = 0
    compressed: bytes = b""
    failure: Exception | None = None
    is_compressed: Event = field(default_factory=Event)
    is_written: Event = field(default_factory=Event)


class Compressor:
    """Write as often as you like, then ``flush``."""

    def __init__(
        self,
        output: OutputFile,
        method: Method,
        cpu: CpuShares,
        on_member: OnMember,
        tasks: TaskGroup,
    ) -> None:
        self._output = output
        self._method = method
        self._cpu = cpu
        self._on_member = on_member
        self._tasks = tasks
        self._filling: _Segment | None = None
        self._under_way: deque[_Segment] = deque()
        self._failure: Exception | None = None
        self._queue, self._segments = create_memory_object_stream[_Segment](cpu.most_segments)

    async def write(self, pieces: Iterable[Piece]) -> None:
        """Append the pieces in order."""
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                if self._filling is None:
                    self._filling = await self._new_segment()
                room = self._method.segment_bytes - len(self._filling.data)
                self._filling.data += rest[:room]
                rest = rest[room:]
                if len(self._filling.data) == self._method.segment_bytes:
                    await self._submit()

    async def put(self, data: bytes) -> None:
        """Put ``data`` behind all that was written, as it is; what comes next is a new member."""
        await self._submit()
        segment = _Segment(compressed=data)
        segment.is_compressed.set()
        await self._drop_written()
        await self._enqueue(segment)

    async def flush(self) -> None:
        """Wait until all that was written is compressed and in the file."""
        await self._submit()
        while self._under_way:
            await self._oldest_written()
        self._raise_failure()

    def close(self) -> None:
        """Give back what is still held; no task may be running any more."""
        self._queue.close()
        held = [*self._under_way] if self._filling is None else [*self._under_way, self._filling]
        for segment in held:
            self._give_back(segment)

    async def write_in_order(self) -> None:
        """The background task: the segments' way into the file."""
        with self._segments:
            async for segment in self._segments:
                await segment.is_compressed.wait()
                self._failure = self._failure or segment.failure
                if self._failure is None:
                    await self._write(segment)
                segment.is_written.set()

    async def _new_segment(self) -> _Segment:
        """The one of its own, or a spare one, as soon as one is free."""
        await self._drop_written()
        while any(segment.is_own for segment in self._under_way):
            if self._may_be_more() and self._cpu.take_segment():
                return _Segment(is_spare=True)
            await self._oldest_written()
        return _Segment(is_own=True)

    def _may_be_more(self) -> bool:
        most = self._method.most_at_once
        return most is None or sum(bool(one.plain_bytes) for one in self._under_way) < most

    async def _drop_written(self) -> None:
        while self._under_way and self._under_way[0].is_written.is_set():
            await self._oldest_written()

    async def _oldest_written(self) -> None:
        await self._under_way[0].is_written.wait()
        self._give_back(self._under_way.popleft())

    def _give_back(self, segment: _Segment) -> None:
        if segment.is_spare:
            self._cpu.give_segment_back()

    async def _submit(self) -> None:
        """Have what was gathered compressed, if there is anything."""
        self._raise_failure()
        segment, self._filling = self._filling, None
        if segment is not None:
            segment.plain_bytes = len(segment.data)
            self._tasks.start_soon(self._compress, segment, name="compress a segment")
            await self._enqueue(segment)

    async def _enqueue(self, segment: _Segment) -> None:
        self._under_way.append(segment)
        await self._queue.send(segment)

    async def _compress(self, segment: _Segment) -> None:
        try:
            segment.compressed = await to_thread.run_sync(
                self._method.compress, segment.data, limiter=self._cpu.limiter
            )
        except Exception as error:  # noqa: BLE001 -- raised by the next write or flush
            segment.failure = error
        segment.data = bytearray()
        segment.is_compressed.set()

    async def _write(self, segment: _Segment) -> None:
        try:
            await self._output.write([segment.compressed])
            if segment.plain_bytes:
                self._on_member(segment.plain_bytes, len(segment.compressed))
        except Exception as error:  # noqa: BLE001 -- raised by the next write or flush
            self._failure = error
        segment.compressed = b""

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

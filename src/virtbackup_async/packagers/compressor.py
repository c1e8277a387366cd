"""Compression of a byte stream in segments, side by side on all cores, in order on disk.

::

    bytes in   | segment 0 | segment 1 | segment 2 | ...
    threads      compress    compress    compress          at most a window of them at once
    file       [member 0][member 1][member 2]...

Each segment becomes a gzip member, a bzip2 stream or an xz stream of its own. The three formats
allow that: whoever reads the file sees one stream. Used by the tar packager. Invariant: what is in
memory is bounded by the window; an error of a worker is raised by the next ``write`` or ``flush``.
"""

import bz2
import lzma
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from anyio import CapacityLimiter, Event, create_memory_object_stream, to_thread
from anyio.abc import TaskGroup
from zlib_ng import zlib_ng

from virtbackup_async.images.background import open_background
from virtbackup_async.packagers.output import OutputFile, Piece

_GZIP_WRAPPER: Final = 31
_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Method:
    """How a segment is compressed. Larger segments pack better where the window is large."""

    compress: Callable[[bytearray], bytes]
    segment_bytes: int


def method_of(compression: str, level: int) -> Method:
    """The method of a tar package; level 0 is each format's usual one."""
    if compression == "gz":
        return Method(partial(_gzip, level or 6), _MIB)
    if compression == "bz2":
        return Method(partial(bz2.compress, compresslevel=level or 9), 4 * _MIB)
    return Method(partial(lzma.compress, preset=level or 6), 8 * _MIB)


def _gzip(level: int, data: bytearray) -> bytes:
    compressed: bytes = zlib_ng.compress(data, level, _GZIP_WRAPPER)
    return compressed


@asynccontextmanager
async def open_compressor(
    output: OutputFile, method: Method, cpu: CapacityLimiter
) -> AsyncIterator["Compressor"]:
    """Compress what is written into ``output``; ``cpu`` limits the threads of the process."""
    async with open_background() as tasks:
        compressor = Compressor(output, method, cpu, tasks)
        tasks.start_soon(compressor.write_in_order, name=f"write {output.path.name}")
        try:
            yield compressor
        finally:
            compressor.close()


@dataclass(eq=False, slots=True)
class _Segment:
    data: bytearray
    compressed: bytes = b""
    failure: Exception | None = None
    is_compressed: Event = field(default_factory=Event)
    is_written: Event = field(default_factory=Event)


class Compressor:
    """Write as often as you like, then ``flush``."""

    def __init__(
        self, output: OutputFile, method: Method, cpu: CapacityLimiter, tasks: TaskGroup
    ) -> None:
        self._output = output
        self._method = method
        self._cpu = cpu
        self._tasks = tasks
        self._filling = bytearray()
        self._failure: Exception | None = None
        window = int(min(64, cpu.total_tokens)) + 1
        self._queue, self._segments = create_memory_object_stream[_Segment](window)

    async def write(self, pieces: Iterable[Piece]) -> None:
        """Append the pieces in order."""
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                room = self._method.segment_bytes - len(self._filling)
                self._filling += rest[:room]
                rest = rest[room:]
                if len(self._filling) == self._method.segment_bytes:
                    await self._submit()

    async def flush(self) -> None:
        """Wait until all that was written is compressed and in the file."""
        last = await self._submit()
        await last.is_written.wait()
        self._raise_failure()

    def close(self) -> None:
        """Take no more; what is not flushed is lost."""
        self._queue.close()

    async def write_in_order(self) -> None:
        """The background task: the segments' way into the file."""
        with self._segments:
            async for segment in self._segments:
                await segment.is_compressed.wait()
                self._failure = self._failure or segment.failure
                if self._failure is None:
                    await self._write(segment)
                segment.is_written.set()

    async def _submit(self) -> _Segment:
        self._raise_failure()
        segment = _Segment(self._filling)
        self._filling = bytearray()
        self._tasks.start_soon(self._compress, segment, name="compress a segment")
        await self._queue.send(segment)
        return segment

    async def _compress(self, segment: _Segment) -> None:
        try:
            segment.compressed = await to_thread.run_sync(
                self._method.compress, segment.data, limiter=self._cpu
            )
        except Exception as error:  # noqa: BLE001 -- raised by the next write or flush
            segment.failure = error
        segment.data = bytearray()
        segment.is_compressed.set()

    async def _write(self, segment: _Segment) -> None:
        try:
            await self._output.write([segment.compressed])
        except Exception as error:  # noqa: BLE001 -- raised by the next write or flush
            self._failure = error
        segment.compressed = b""

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

"""Compression of a byte stream in segments, in parallel on all cores, in order on disk.

::

    bytes in   | segment 0 | segment 1 | segment 2 | ...
    threads      compress    compress    compress          a bounded number at once
    file       [member 0][member 1][member 2]...

Each segment becomes a gzip member, a bzip2 stream, an xz stream or a run of a zstd frame. All four
formats allow that: a reader of the file sees one stream. Used by the tar and zstd packagers.

Invariants: A compressor has one segment in memory and the memory of one more, and others only while
the process has spare ones. Only a few compressed segments wait for an earlier one. The next
``write``, ``lend``, ``put`` or ``flush`` raises a worker's error.
"""

import bz2
import lzma
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from anyio import Event, create_memory_object_stream
from anyio.abc import TaskGroup
from msgspec import Struct, field

from virtbackup_async.concurrency import open_background
from virtbackup_async.packagers.codecs.compressible import is_dense
from virtbackup_async.packagers.codecs.cpu_shares import CpuShares
from virtbackup_async.packagers.codecs.gzip_member import compress_gzip
from virtbackup_async.packagers.codecs.output import Data, OutputFile
from virtbackup_async.packagers.codecs.xz import store_xz

_MIB: Final = 1024 * 1024
_USUAL_LEVEL: Final = 6


OnMember = Callable[[int, int], None]


class Method(Struct, frozen=True):
    """How a segment is compressed, and how long segments are.

    They are short, because readers decompress them in parallel, with many in memory at once.

    Attributes:
        compress: blocks.
        segment_bytes: the length of all segments but the last one.
        is_long: see ``CpuShares.run``.
    """

    compress: Callable[[memoryview], bytes]
    segment_bytes: int
    is_long: bool = False


def method_of(compression: str, level: int) -> Method:
    """Return the method of a tar package; level 0 is each format's default."""
    if compression == "gz":
        return Method(partial(compress_gzip, level or _USUAL_LEVEL), _MIB)
    if compression == "bz2":
        # One block of the format; longer segments would not compress better.
        compress = partial(bz2.compress, compresslevel=level or 9)
        return Method(compress, (level or 9) * 100_000, is_long=True)
    level = level or _USUAL_LEVEL
    # A compressor needs eleven times its dictionary. One as long as the segment would save 0.4 %.
    segment_bytes = 2 * _MIB << min(2, max(0, level - _USUAL_LEVEL))
    return Method(partial(_xz, level, segment_bytes // 2), segment_bytes, is_long=True)


def _xz(level: int, dictionary_bytes: int, data: memoryview) -> bytes:
    if is_dense(data):
        return store_xz(data)
    lzma2 = {"id": lzma.FILTER_LZMA2, "preset": level, "dict_size": dictionary_bytes}
    return lzma.compress(data, filters=[lzma2])


def _nobody_listens(_plain_bytes: int, _packed_bytes: int) -> None:
    """Ignore the members."""


@asynccontextmanager
async def open_compressor(
    output: OutputFile, method: Method, cpu: CpuShares, on_member: OnMember = _nobody_listens
) -> AsyncIterator["Compressor"]:
    """Compress the bytes that are written to the compressor into ``output``.

    Args:
        output: the file.
        method: how to compress.
        cpu: the process's, which limits how much is compressed at once.
        on_member: called for each member in the file, in order, with its decompressed length and
            its own.
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
    """A part of the file: compressed from the start of ``data``, or put there as it is."""

    is_spare: bool = False
    data: memoryview = memoryview(b"")
    give_back: Callable[[], None] | None = None
    plain_bytes: int = 0
    compressed: bytes = b""
    failure: Exception | None = None
    is_compressed: Event = field(default_factory=Event)
    is_written: Event = field(default_factory=Event)

    def take(self, piece: memoryview) -> memoryview:
        """Copy as much of the piece as fits; return the rest."""
        start = self.plain_bytes
        self.plain_bytes = min(len(self.data), start + len(piece))
        room = self.plain_bytes - start
        self.data[start : self.plain_bytes] = piece[:room]
        return piece[room:]


class Compressor:
    """Call ``write`` any number of times, then ``flush``."""

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
        self._own_is_taken = False
        self._data_at_rest: memoryview | None = None
        self._spares = 0
        self._compressing = 0
        self._one_is_free = Event()
        self._failure: Exception | None = None
        self._queue, self._segments = create_memory_object_stream[_Segment](cpu.most_segments)

    async def write(self, pieces: Iterable[Data]) -> None:
        """Append the pieces in order."""
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                if self._filling is None:
                    self._filling = await self._new_segment()
                    self._filling.data = self._new_data()
                rest = self._filling.take(rest)
                if self._filling.plain_bytes == self._method.segment_bytes:
                    await self._submit()

    async def lend(self, piece: memoryview, give_back: Callable[[], None]) -> None:
        """Append a piece, and do not copy it if it is long enough for its own segment.

        Args:
            piece: must not change until it is given back.
            give_back: called when the piece is not needed any more, except after an error.
        """
        segment_bytes = self._method.segment_bytes
        is_long_enough = segment_bytes // 2 <= len(piece) <= segment_bytes
        gathered_bytes = self._filling.plain_bytes if self._filling else 0
        if is_long_enough and not 0 < gathered_bytes <= segment_bytes - len(piece):
            await self._submit()
            self._filling = await self._new_segment()
            self._filling.data, self._filling.plain_bytes = piece, len(piece)
            self._filling.give_back = give_back
            await self._submit()
        else:
            await self.write([piece])
            give_back()

    async def put(self, data: bytes) -> None:
        """Append ``data`` without compressing it; the next bytes start a new member."""
        await self._put(data)

    async def flush(self) -> None:
        """Wait until all bytes are compressed and in the file."""
        last = await self._put(b"")
        await last.is_written.wait()
        self._raise_failure()

    def close(self) -> None:
        """Return the spare segments; no task can be running any more."""
        self._queue.close()
        for _ in range(self._spares):
            self._cpu.give_segment_back()

    async def write_in_order(self) -> None:
        """Write the segments to the file, in a background task."""
        with self._segments:
            async for segment in self._segments:
                await segment.is_compressed.wait()
                self._failure = self._failure or segment.failure
                if self._failure is None:
                    await self._write(segment)
                segment.is_written.set()

    async def _new_segment(self) -> _Segment:
        """Return the compressor's own segment or a spare one, as soon as one is free."""
        while self._own_is_taken:
            if self._cpu.take_segment():
                self._spares += 1
                return _Segment(is_spare=True)
            self._one_is_free = Event()
            await self._one_is_free.wait()
        self._own_is_taken = True
        return _Segment()

    def _new_data(self) -> memoryview:
        data, self._data_at_rest = self._data_at_rest, None
        return data or memoryview(bytearray(self._method.segment_bytes))

    async def _submit(self) -> None:
        """Start to compress the current segment, if there is one."""
        self._raise_failure()
        segment, self._filling = self._filling, None
        if segment is not None:
            self._compressing += 1
            self._tasks.start_soon(self._compress, segment, name="compress a segment")
            await self._queue.send(segment)

    async def _put(self, data: bytes) -> _Segment:
        await self._submit()
        segment = _Segment(compressed=data)
        segment.is_compressed.set()
        await self._queue.send(segment)
        return segment

    async def _compress(self, segment: _Segment) -> None:
        try:
            data = segment.data[: segment.plain_bytes]
            work = partial(self._method.compress, data)
            segment.compressed = await self._cpu.run(work, is_long=self._method.is_long)
        except Exception as error:  # noqa: BLE001 -- raised by the next write or flush
            segment.failure = error
        # It is freed before it is written, so that a slow one does not delay those after it.
        self._free(segment)
        segment.is_compressed.set()

    def _free(self, segment: _Segment) -> None:
        data, segment.data = segment.data, memoryview(b"")
        if segment.give_back is not None:
            segment.give_back()
        else:
            # Reused: new pages cost the kernel as much time as copying.
            self._data_at_rest = data
        self._compressing -= 1
        if segment.is_spare:
            self._spares -= 1
            self._cpu.give_segment_back()
        else:
            self._own_is_taken = False
        self._one_is_free.set()

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

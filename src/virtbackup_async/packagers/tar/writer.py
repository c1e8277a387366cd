"""Writes tar packages: one archive of all disks, optionally compressed.

Loaded by ``registry.py``; ``format.py`` has the layout. An archive is one sequence, so disks wait
for each other.
"""

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Protocol

from anyio import Lock, to_thread

from virtbackup_async.images.pieces import Piece
from virtbackup_async.images.stream import DiskStream
from virtbackup_async.model.extent import Extent
from virtbackup_async.model.names import plain_name
from virtbackup_async.model.packager import Location
from virtbackup_async.packagers.codecs.compressor import method_of, open_compressor
from virtbackup_async.packagers.codecs.cpu_shares import CpuShares
from virtbackup_async.packagers.codecs.output import Data, OutputFile, open_output, zero_pieces
from virtbackup_async.packagers.interface import Progress
from virtbackup_async.packagers.tar.format import Layout, end_of_archive, member_head, padding


@asynccontextmanager
async def open_writer(location: Location, cpu: CpuShares) -> AsyncIterator["TarWriter"]:
    """Start an archive, which is removed again unless ``finish`` is called."""
    (path,) = location.paths(())
    opts = location.packager.opts
    compression = opts.get("compression")
    async with open_output(path) as output:
        if compression in {None, "tar"}:
            yield TarWriter(output, output)
            return
        method = method_of(compression, opts.get("compression_lvl") or 0)
        async with open_compressor(output, method, cpu) as compressor:
            yield TarWriter(output, compressor)


class _Sink(Protocol):
    async def write(self, pieces: Iterable[Data]) -> None: ...
    async def flush(self) -> None: ...


class TarWriter:
    """The ``PackageWriter`` of tar packages."""

    def __init__(self, output: OutputFile, sink: _Sink) -> None:
        self._output = output
        self._sink = sink
        self._is_compressed = sink is not output
        self._turn = Lock()
        self._archive_bytes = 0

    async def add_disk(self, file: str, stream: DiskStream, on_progress: Progress) -> int:
        plain_name(file)
        async with self._turn:
            stored_before = self._output.length_bytes
            await self._write_member(file, stream, on_progress)
            await self._sink.flush()
            return self._output.length_bytes - stored_before

    async def finish(self) -> None:
        await self._sink.write([end_of_archive(self._archive_bytes)])
        await self._sink.flush()
        await self._output.finish()
        await to_thread.run_sync(self._output.place.parent.sync_names)

    async def discard(self) -> None:
        await self._output.discard()

    async def _write_member(self, file: str, stream: DiskStream, on_progress: Progress) -> None:
        extents = stream.data_extents
        layout = Layout((Extent(0, stream.size_bytes),) if extents is None else extents)
        position = None if self._is_compressed else self._archive_bytes
        head = member_head(file, stream.size_bytes, layout, self._output.created_s, position)
        await self._sink.write([head])
        if self._is_compressed:
            body = _Body(layout)
            async for piece in stream.pieces():
                await self._sink.write(body.pieces_of(piece))
                on_progress(stream.data_bytes)
            await self._sink.write(body.end())
        else:
            await self._output.write_data(stream, layout.position, layout.length_bytes, on_progress)
        rest = padding(layout.length_bytes)
        await self._sink.write([rest])
        self._archive_bytes += len(head) + layout.length_bytes + len(rest)


class _Body:
    """A member's data in order, with zeros for the pieces that the stream leaves out."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._position = 0

    def pieces_of(self, piece: Piece) -> Iterator[Data]:
        for extent in piece.ranges:
            yield from self._zeros_up_to(self._layout.position(extent.start))
            start = extent.start - piece.offset
            self._position += extent.length
            yield piece.data[start : start + extent.length]

    def end(self) -> Iterator[Data]:
        yield from self._zeros_up_to(self._layout.length_bytes)

    def _zeros_up_to(self, position: int) -> Iterator[Data]:
        missing = position - self._position
        self._position = position
        yield from zero_pieces(missing)

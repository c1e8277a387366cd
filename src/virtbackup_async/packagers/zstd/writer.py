"""Writes zstd packages: each disk is a file of its own, with one zstd frame.

Loaded by ``registry.py``; ``frame.py`` has the layout. There is one frame, because virt-backup
stops reading after the first. Holes of some MiB are stored as holes, and smaller ones as zeros. The
rest is compressed in runs, in parallel.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

from anyio import to_thread

from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.images.stream import Batch, DiskStream
from virtbackup_async.model.extent import Extent
from virtbackup_async.model.packager import Location
from virtbackup_async.packagers.codecs.compressor import Compressor, Method, open_compressor
from virtbackup_async.packagers.codecs.cpu_shares import CpuShares
from virtbackup_async.packagers.codecs.output import OutputFile, open_output, zero_pieces
from virtbackup_async.packagers.interface import Progress
from virtbackup_async.packagers.zstd.frame import LAST_BLOCK, frame_header, hole_blocks
from virtbackup_async.packagers.zstd.map import MAX_HOLES, ZstdMap, encode_map, packed_run
from virtbackup_async.packagers.zstd.runs import RunCompressors, run_bytes_of, window_log_of

# A hole ends a run, and short runs do not pack as well.
_SMALLEST_HOLE_BYTES: Final = 4 * 1024 * 1024


@asynccontextmanager
async def open_writer(location: Location, cpu: CpuShares) -> AsyncIterator["ZstdWriter"]:
    """Start a package; see ``registry.open_writer``."""
    yield ZstdWriter(location, cpu)


class ZstdWriter:
    """The ``PackageWriter`` of zstd packages."""

    def __init__(self, location: Location, cpu: CpuShares) -> None:
        self._location = location
        self._level = location.packager.opts.get("compression_lvl") or 0
        self._cpu = cpu
        self._compressors = cpu.shared(_run_compressors)
        self._written: list[Path] = []

    async def add_disk(self, file: str, stream: DiskStream, on_progress: Progress) -> int:
        path = self._location.path(file)
        async with open_output(path) as output:
            async with self._cpu.taking_part():
                await self._write_frame(output, stream, on_progress)
            await output.finish()
            self._written.append(path)
        return output.length_bytes

    async def finish(self) -> None:
        await to_thread.run_sync(TargetPath.of(self._location.directory, 1).sync_names)

    async def discard(self) -> None:
        while self._written:
            await to_thread.run_sync(TargetPath.in_domain(self._written[-1]).remove)
            self._written.pop()

    async def _write_frame(
        self, output: OutputFile, stream: DiskStream, on_progress: Progress
    ) -> None:
        runs = bytearray()

        def note(plain_bytes: int, packed_bytes: int) -> None:
            nonlocal runs
            runs += packed_run(plain_bytes, packed_bytes)

        run_bytes = run_bytes_of(self._level)
        compress = partial(self._compressors.compress, self._level)
        method = Method(compress, run_bytes)
        async with open_compressor(output, method, self._cpu, note) as compressor:
            frame = _FrameWriter(compressor)
            await compressor.put(frame_header(window_log_of(run_bytes), stream.size_bytes))
            await frame.write(stream, on_progress)
            await compressor.put(LAST_BLOCK)
            await compressor.flush()
        if stream.data_extents is not None:
            zstd_map = ZstdMap(bytes(runs), tuple(frame.holes), stream.data_extents)
            await output.write(encode_map(zstd_map))


def _run_compressors(_cpu: CpuShares) -> RunCompressors:
    return RunCompressors()


class _FrameWriter:
    """Writes the runs and the holes of one disk."""

    def __init__(self, compressor: Compressor) -> None:
        self.holes: list[Extent] = []
        self._compressor = compressor
        self._position = 0

    async def write(self, stream: DiskStream, on_progress: Progress) -> None:
        while (batch := await stream.take()) is not None:
            await self._add(batch)
            on_progress(stream.data_bytes)
        await self._skip_to(stream.size_bytes)

    async def _add(self, batch: Batch) -> None:
        for chunk in batch.pieces:
            await self._skip_to(chunk.offset)
            if chunk is batch.pieces[-1]:
                # Most pieces are alone in their batch and as long as a run, and need not be copied.
                await self._compressor.lend(chunk.data, batch.give_back)
            else:
                await self._compressor.write([chunk.data])
            self._position += len(chunk.data)

    async def _skip_to(self, offset: int) -> None:
        length_bytes = offset - self._position
        if length_bytes >= _SMALLEST_HOLE_BYTES and len(self.holes) < MAX_HOLES:
            for blocks in hole_blocks(length_bytes, is_first=not self._position):
                await self._compressor.put(blocks)
            self.holes.append(Extent(self._position, length_bytes))
        else:
            await self._compressor.write(zero_pieces(length_bytes))
        self._position = offset

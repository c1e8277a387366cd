"""Writing zstd packages: each disk is a file of its own, one zstd frame.

Opened by ``registry.py``; ``zstd_reader.py`` is the way back, ``zstd_frame.py`` the layout. One
frame, because virt-backup stops reading behind the first. Holes of some MiB are laid down as such;
smaller ones go in as zeros. Alone, a disk is compressed in zstd's own threads; many at a time, each
in the thread that calls. That is settled anew behind each hole.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

import zstandard
from anyio import to_thread

from virtbackup_async.images.durable import remove_durably, sync_directory
from virtbackup_async.images.stream import DiskStream
from virtbackup_async.model.backup import Packager
from virtbackup_async.packagers.cpu_shares import CpuShares
from virtbackup_async.packagers.interface import Progress
from virtbackup_async.packagers.names import zstd_path
from virtbackup_async.packagers.output import Piece, open_output
from virtbackup_async.packagers.write_queue import WriteQueue, open_write_queue
from virtbackup_async.packagers.zeros import zero_pieces
from virtbackup_async.packagers.zstd_frame import LAST_BLOCK, frame_header, hole_blocks
from virtbackup_async.packagers.zstd_map import MAX_HOLES, Hole, ZstdMap, encode_map

_MIB: Final = 1024 * 1024
_PIECES_AT_ONCE: Final = 16
# Behind a hole the compressor knows nothing of what was before, and its threads start anew.
_SMALLEST_HOLE_BYTES: Final = 4 * _MIB
# zstd's own choice, four windows, would need a hundred MiB on two processors.
_SMALLEST_JOB_BYTES: Final = 2 * _MIB


class ZstdWriter:
    """The ``PackageWriter`` of zstd packages."""

    concurrent_disks = True

    def __init__(self, directory: Path, name: str, packager: Packager, cpu: CpuShares) -> None:
        self._directory = directory
        self._name = name
        self._level = packager.opts.get("compression_lvl") or 0
        self._threads = packager.opts.get("threads")
        self._cpu = cpu
        self._written: list[Path] = []

    async def add_disk(self, file: str, stream: DiskStream, on_progress: Progress) -> int:
        path = zstd_path(self._directory, self._name, file)
        async with open_output(path) as output:
            async with self._cpu.taking_part(), open_write_queue(output) as queue:
                frame = _FrameWriter(queue, self._cpu, self._level, self._threads)
                await frame.write(stream, on_progress)
                await queue.flush()
            await output.finish()
            self._written.append(path)
        return output.length_bytes

    async def finish(self) -> None:
        await sync_directory(self._directory)

    async def discard(self) -> None:
        while self._written:
            await remove_durably(self._written[-1])
            self._written.pop()


class _FrameWriter:
    """Lays one disk down."""

    def __init__(self, queue: WriteQueue, cpu: CpuShares, level: int, threads: int | None) -> None:
        self._queue = queue
        self._cpu = cpu
        self._level = level
        self._fixed_threads = threads
        self._threads = self._wanted_threads()
        self._compressor: zstandard.ZstdCompressor | None = None
        self._run: _Run | None = None
        self._position = 0
        self._laid_bytes = 0
        self._holes: list[Hole] = []

    async def write(self, stream: DiskStream, on_progress: Progress) -> None:
        window_log = _parameters(self._level, 0).window_log
        await self._lay([frame_header(window_log, stream.size_bytes)])
        async for chunk in stream.chunks():
            await self._skip_to(chunk.offset)
            await self._add([chunk.data])
            on_progress(stream.data_bytes)
        await self._skip_to(stream.size_bytes)
        await self._end_run()
        await self._lay([LAST_BLOCK])
        if stream.data_extents is not None:
            zstd_map = ZstdMap(tuple(self._holes), stream.data_extents)
            await self._lay([encode_map(zstd_map)])

    async def _skip_to(self, offset: int) -> None:
        length_bytes = offset - self._position
        smallest = _MIB if self._threads != self._wanted_threads() else _SMALLEST_HOLE_BYTES
        if length_bytes >= smallest and len(self._holes) < MAX_HOLES:
            await self._add_hole(length_bytes)
        else:
            await self._add(zero_pieces(length_bytes))

    async def _add_hole(self, length_bytes: int) -> None:
        await self._end_run()
        self._holes.append(Hole(self._position, length_bytes, self._laid_bytes))
        for blocks in hole_blocks(length_bytes, is_first=not self._position):
            await self._lay([blocks])
        self._position += length_bytes

    async def _add(self, pieces: Iterable[Piece]) -> None:
        rest = iter(pieces)
        while batch := list(islice(rest, _PIECES_AT_ONCE)):
            if self._run is None:
                self._run = self._new_run()
            await self._store(partial(self._run.compress, batch))
            self._position += sum(map(len, batch))

    def _new_run(self) -> "_Run":
        threads = self._wanted_threads()
        if self._compressor is None or threads != self._threads:
            parameters = _parameters(self._level, threads)
            # Kept for the next run: its threads and its memory are made once.
            self._compressor = zstandard.ZstdCompressor(compression_params=parameters)
            self._threads = threads
        return _Run(self._compressor)

    async def _end_run(self) -> None:
        run, self._run = self._run, None
        if run is not None:
            await self._store(run.finish)

    async def _store(self, work: Callable[[], list[bytes]]) -> None:
        if compressed := await to_thread.run_sync(work, limiter=self._cpu.limiter):
            await self._lay(compressed)

    async def _lay(self, pieces: Sequence[bytes]) -> None:
        self._laid_bytes += sum(map(len, pieces))
        await self._queue.write(pieces)

    def _wanted_threads(self) -> int:
        if self._fixed_threads is not None:
            return self._fixed_threads
        each = self._cpu.threads_each
        return each if each > 1 else 0  # 0: in the calling thread


class _Run:
    """The blocks of one run of data; blocking, for worker threads."""

    def __init__(self, compressor: zstandard.ZstdCompressor) -> None:
        self._frame = compressor.compressobj()
        self._has_header = True

    def compress(self, pieces: list[Piece]) -> list[bytes]:
        return self._without_header([self._frame.compress(piece) for piece in pieces])

    def finish(self) -> list[bytes]:
        # The frame is never ended: its last block is not the last one of the file.
        return self._without_header([self._frame.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)])

    def _without_header(self, compressed: list[bytes]) -> list[bytes]:
        data = [piece for piece in compressed if piece]
        if data and self._has_header:
            self._has_header = False
            data[0] = data[0][zstandard.frame_header_size(data[0]) :]
        return data


def _parameters(level: int, threads: int) -> zstandard.ZstdCompressionParameters:
    plain = zstandard.ZstdCompressionParameters.from_level(level)
    return zstandard.ZstdCompressionParameters.from_level(
        level,
        threads=threads,
        job_size=max(_SMALLEST_JOB_BYTES, 1 << plain.window_log) if threads else 0,
        write_content_size=False,
    )

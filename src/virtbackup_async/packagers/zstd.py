"""Writing zstd packages: each disk is a file of its own, one zstd frame.

Opened by ``registry.py``; ``zstd_reader.py`` is the way back. One frame, because virt-backup stops
reading behind the first. Holes go in as zeros and come out as next to nothing. Compression runs in
zstd's own threads, behind one worker thread a disk.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

import zstandard
from anyio import CapacityLimiter, to_thread

from virtbackup_async.images.durable import remove_durably, sync_directory
from virtbackup_async.images.stream import DiskStream
from virtbackup_async.model.backup import Packager
from virtbackup_async.packagers.interface import Progress
from virtbackup_async.packagers.names import zstd_path
from virtbackup_async.packagers.output import OutputFile, Piece, open_output
from virtbackup_async.packagers.zeros import zero_pieces

_PIECES_AT_ONCE: Final = 16


class ZstdWriter:
    """The ``PackageWriter`` of zstd packages."""

    concurrent_disks = True

    def __init__(
        self, directory: Path, name: str, packager: Packager, cpu: CapacityLimiter
    ) -> None:
        self._directory = directory
        self._name = name
        self._level = packager.opts.get("compression_lvl") or 0
        threads = packager.opts.get("threads")
        self._threads = int(min(64, cpu.total_tokens)) if threads is None else threads
        self._cpu = cpu
        self._written: list[Path] = []

    async def add_disk(self, file: str, stream: DiskStream, on_progress: Progress) -> int:
        path = zstd_path(self._directory, self._name, file)
        async with open_output(path) as output:
            await self._compress(stream, output, on_progress)
            await output.finish()
            self._written.append(path)
        return output.length_bytes

    async def finish(self) -> None:
        await sync_directory(self._directory)

    async def discard(self) -> None:
        while self._written:
            await remove_durably(self._written[-1])
            self._written.pop()

    async def _compress(
        self, stream: DiskStream, output: OutputFile, on_progress: Progress
    ) -> None:
        frame = self._new_frame(stream.size_bytes)
        position = 0
        async for chunk in stream.chunks():
            await self._feed(frame, output, zero_pieces(chunk.offset - position))
            await self._feed(frame, output, iter([chunk.data]))
            position = chunk.offset + len(chunk.data)
            on_progress(stream.data_bytes)
        await self._feed(frame, output, zero_pieces(stream.size_bytes - position))
        await output.write([await to_thread.run_sync(frame.flush, limiter=self._cpu)])

    async def _feed(
        self, frame: "zstandard.ZstdCompressionObj", output: OutputFile, pieces: Iterator[Piece]
    ) -> None:
        while batch := list(islice(pieces, _PIECES_AT_ONCE)):
            compressed = await to_thread.run_sync(_compress, frame, batch, limiter=self._cpu)
            if compressed:
                await output.write(compressed)

    def _new_frame(self, size_bytes: int) -> "zstandard.ZstdCompressionObj":
        parameters = zstandard.ZstdCompressionParameters.from_level(
            self._level, threads=self._threads, write_content_size=True
        )
        return zstandard.ZstdCompressor(compression_params=parameters).compressobj(size=size_bytes)


def _compress(frame: "zstandard.ZstdCompressionObj", pieces: list[Piece]) -> list[bytes]:
    compressed = (frame.compress(piece) for piece in pieces)
    return [data for data in compressed if data]

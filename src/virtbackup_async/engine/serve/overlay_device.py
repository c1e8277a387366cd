"""A device that can be written to: an overlay's file above a disk of a backup, which never changes.

Writes of less than a block take the rest of the block from below first. They are made one at a
time; reads go on meanwhile.
"""

from anyio import Lock, to_thread

from virtbackup_async.engine.serve.overlay_file import BELOW, BLOCK_BYTES, DATA, OverlayFile
from virtbackup_async.model.extent import Extent
from virtbackup_async.nbd.server.device import DataMap, Device, data_map

_MOST_MAPPED_BYTES = 1 << 30


class OverlayDevice:
    """A ``WritableDevice``."""

    def __init__(self, below: Device, file: OverlayFile) -> None:
        self.size_bytes = below.size_bytes
        self._below = below
        self._file = file
        self._turn = Lock()

    async def read(self, offset: int, length: int) -> bytes:
        parts = []
        for state, start, now in list(self._file.runs(offset, length)):
            if state == BELOW:
                parts.append(await self._below.read(start, now))
            elif state == DATA:
                parts.append(await to_thread.run_sync(self._file.read, start, now))
            else:
                parts.append(bytes(now))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def data_in(self, offset: int, length: int, most: int) -> DataMap:
        length = min(length, _MOST_MAPPED_BYTES)
        data: list[Extent] = []
        for state, start, now in list(self._file.runs(offset, length)):
            if state == DATA:
                data.append(Extent(start, now))
            elif state == BELOW:
                found = await self._below.data_in(start, now, most)
                data += found.data
                if found.end < start + now:
                    return data_map(offset, found.end - offset, data, most)
            if len(data) > most:
                return data_map(offset, start + now - offset, data, most)
        return data_map(offset, length, data, most)

    async def write(self, offset: int, data: bytes) -> None:
        async with self._turn:
            await self._write(offset, data)

    async def write_zeroes(self, offset: int, length: int) -> None:
        async with self._turn:
            end = offset + length
            first = min(end, -(-offset // BLOCK_BYTES) * BLOCK_BYTES)
            last = end if end == self.size_bytes else end // BLOCK_BYTES * BLOCK_BYTES
            if first < last:
                self._file.zero(first, last - first)
            for start, stop in ((offset, first), (max(first, last), end)):
                if start < stop:
                    await self._write(start, bytes(stop - start))

    async def flush(self) -> None:
        async with self._turn:
            await to_thread.run_sync(self._file.flush)

    async def _write(self, offset: int, data: bytes) -> None:
        end = offset + len(data)
        first = offset // BLOCK_BYTES * BLOCK_BYTES
        last = min(self.size_bytes, -(-end // BLOCK_BYTES) * BLOCK_BYTES)
        before = await self.read(first, offset - first) if first < offset else b""
        after = await self.read(end, last - end) if end < last else b""
        await to_thread.run_sync(self._file.write, first, before + data + after)

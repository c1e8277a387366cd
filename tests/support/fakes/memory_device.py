"""A device in memory, which is damaged where a test says so, and stands still while it says so."""

import anyio

from virtbackup_async.errors import CorruptError
from virtbackup_async.model.extent import Extent
from virtbackup_async.nbd.server.device import data_map


class MemoryDevice:
    """Holes are pages of zeros."""

    def __init__(self, content, *, damaged=()):
        self.content = bytearray(content)
        self.damaged = [range(*one) for one in damaged]
        self.reads = []
        self.flushed = bytes(content)
        self.may_read = anyio.Event()
        self.may_read.set()
        self.under_way = self.most_under_way = 0

    @property
    def size_bytes(self):
        return len(self.content)

    async def read(self, offset, length):
        self.reads.append((offset, length))
        self.under_way += 1
        self.most_under_way = max(self.under_way, self.most_under_way)
        try:
            await self.may_read.wait()
        finally:
            self.under_way -= 1
        if any(one.start < offset + length and offset < one.stop for one in self.damaged):
            raise CorruptError("this range is damaged")
        return bytes(self.content[offset : offset + length])

    async def data_in(self, offset, length, most):
        end = offset + length
        pages = (
            Extent(start, min(start + 4096, end) - start)
            for start in range(offset // 4096 * 4096, end, 4096)
            if any(self.content[start : start + 4096])
        )
        return data_map(offset, length, pages, most)


class WritableMemoryDevice(MemoryDevice):
    async def write(self, offset, data):
        self.content[offset : offset + len(data)] = data

    async def write_zeroes(self, offset, length):
        self.content[offset : offset + length] = bytes(length)

    async def flush(self):
        self.flushed = bytes(self.content)

"""A device in memory, which is damaged where a test says so, and stands still while it says so."""

import anyio

from virtbackup_async.errors import CorruptError
from virtbackup_async.model.extent import Extent


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
        found: list[Extent] = []
        end = offset + length
        while offset < end and len(found) <= most:
            page_end = min(end, (offset // 4096 + 1) * 4096)
            if any(self.content[offset:page_end]):
                if found and found[-1].end == offset:
                    found[-1] = Extent(found[-1].start, page_end - found[-1].start)
                else:
                    found.append(Extent(offset, page_end - offset))
            offset = page_end
        return found


class WritableMemoryDevice(MemoryDevice):
    async def write(self, offset, data):
        self.content[offset : offset + len(data)] = data

    async def write_zeroes(self, offset, length):
        self.content[offset : offset + length] = bytes(length)

    async def flush(self):
        self.flushed = bytes(self.content)

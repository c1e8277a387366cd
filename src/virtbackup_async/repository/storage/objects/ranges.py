"""Reads objects by ranges: small ones as they come, larger ones ahead if they follow each other.

::

    a read anywhere           as much as is asked for, and a little more
    the third in a row        whole blocks of 4 MiB, and the next ones in advance

Blocks are shared by all files of a storage, and the ones that were used least are forgotten. A
restore reads packs from one end to the other with a few jumps, so each block is fetched once.
"""

import errno
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Final

from virtbackup_async.errors import CorruptError, StorageError
from virtbackup_async.repository.storage.objects.answers import Range
from virtbackup_async.repository.storage.objects.calls import ObjectCalls
from virtbackup_async.repository.storage.objects.requests import CallFailedError

FIRST_BYTES: Final = 256 * 1024
BLOCK_BYTES: Final = 4 << 20
MOST_BLOCKS: Final = 16
_THREADS: Final = 4
_IN_A_ROW: Final = 2
_AHEAD: Final = 3


class Blocks:
    """The blocks that were read last, and those that are under way; any thread may ask."""

    def __init__(self) -> None:
        self._blocks: OrderedDict[Hashable, Future[memoryview]] = OrderedDict()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="read ahead")
        self._turn = Lock()

    def begin(self, key: Hashable, fetch: Callable[[], memoryview]) -> Future[memoryview]:
        """Return a block that is there, or begin to fetch it."""
        with self._turn:
            block = self._blocks.get(key)
            if block is None or (block.done() and block.exception() is not None):
                block = self._blocks[key] = self._threads.submit(fetch)
            self._blocks.move_to_end(key)
            while len(self._blocks) > MOST_BLOCKS:
                self._blocks.popitem(last=False)
            return block


class ObjectFile:
    """A ``StoredFile``: ranges of an object.

    A file up to ``FIRST_BYTES`` is in memory. Of a longer one, a range fails with FileNotFoundError
    once the object has gone, and with StorageError once it is another one.
    """

    def __init__(
        self, calls: ObjectCalls, blocks: Blocks, name: str, where: str, beginning: Range
    ) -> None:
        self.where = where
        self.size_bytes = beginning.meta.size_bytes
        self._calls = calls
        self._blocks = blocks
        self._name = name
        self._e_tag = beginning.meta.e_tag
        self._offset = 0
        self._piece = bytes(beginning.data)
        self._last_end = 0
        self._in_a_row = 0
        self._turn = Lock()

    def read(self, length_bytes: int, offset: int) -> bytes:
        data = self.read_up_to(length_bytes, offset)
        if len(data) < length_bytes:
            raise CorruptError("it is cut off")
        return data

    def read_up_to(self, length_bytes: int, offset: int) -> bytes:
        length = min(length_bytes, self.size_bytes - offset)
        if length <= 0:
            return b""
        end = offset + length
        with self._turn:
            if self._offset <= offset and end <= self._offset + len(self._piece):
                return self._piece[offset - self._offset : end - self._offset]
            is_near = abs(offset - self._last_end) <= BLOCK_BYTES
            self._in_a_row = self._in_a_row + 1 if is_near else 0
            self._last_end = end
            is_alone = self._in_a_row < _IN_A_ROW
        if not is_alone:
            return self._read_blocks(offset, end)
        piece = bytes(self._fetch(offset, max(length, FIRST_BYTES)))
        with self._turn:
            self._offset, self._piece = offset, piece
        return piece[:length]

    def read_once(self, length_bytes: int, offset: int) -> memoryview:
        if offset + length_bytes > self.size_bytes:
            raise CorruptError("it is cut off")
        return self._fetch(offset, length_bytes) if length_bytes else memoryview(b"")

    def close(self) -> None:
        self._piece = b""

    def _read_blocks(self, offset: int, end: int) -> bytes:
        first, last = offset // BLOCK_BYTES, (end - 1) // BLOCK_BYTES
        blocks = [self._begin(number) for number in range(first, last + 1)]
        for ahead in range(last + 1, last + 1 + _AHEAD):
            if ahead * BLOCK_BYTES < self.size_bytes:
                self._begin(ahead)
        parts = [block.result() for block in blocks]
        data = parts[0] if len(parts) == 1 else memoryview(b"".join(parts))
        skipped = offset - first * BLOCK_BYTES
        return bytes(data[skipped : skipped + end - offset])

    def _begin(self, number: int) -> Future[memoryview]:
        def fetch() -> memoryview:
            return self._fetch(number * BLOCK_BYTES, BLOCK_BYTES)

        return self._blocks.begin((self._name, self._e_tag, number), fetch)

    def _fetch(self, offset: int, length: int) -> memoryview:
        """Return a range, shorter at the end of the file."""
        wanted = min(length, self.size_bytes - offset)
        try:
            found = self._calls.get_range(self._name, offset, wanted, self._e_tag)
        except CallFailedError as failed:
            raise StorageError(f"cannot read {self.where}: it was replaced") from failed
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", self.where)
        return found.data

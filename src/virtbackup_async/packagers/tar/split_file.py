"""A compressed archive as a file of its decompressed bytes, which all cores decompress.

::

    archive      | member 0 | member 1 | member 2 | member 3 | ...
    in memory                ^ read here  ^----------^ decompressed ahead, in worker threads

tarfile reads it for ``reader.py``. Skipped members whose length is known are not decompressed. A
seek backwards is possible, and starts again at the front. Invariants: the memory is bounded; calls
block, and only one thread makes them; after ``close`` no thread reads the archive.
"""

import io
import os
from collections import deque
from concurrent.futures import Executor, Future, wait
from itertools import islice

from msgspec import Struct

from virtbackup_async.packagers.tar.members import Member, Split


class _Entry(Struct):
    member: Member
    future: Future[bytes | bytearray] | None = None


class SplitFile(io.RawIOBase):
    """The decompressed members of an archive, as one file.

    Args:
        fd: the archive, which stays open.
        split: how it is split.
        executor: decompresses the members.
        most_ahead: how many members it decompresses ahead.
    """

    def __init__(self, fd: int, split: Split, executor: Executor, most_ahead: int) -> None:
        self._fd = fd
        self._split = split
        self._executor = executor
        self._most_ahead = most_ahead
        self._position = 0
        self._entries: deque[_Entry] = deque()
        self._members = split.members()
        self._start = 0
        self._ahead = 1

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence != os.SEEK_SET:
            raise io.UnsupportedOperation("seek from anywhere but the start")
        self._position = offset
        return offset

    def readinto(self, target: memoryview) -> int:  # type: ignore[override]
        if self.closed:
            raise ValueError("read of a closed file")
        view = memoryview(target)
        done = 0
        while done < len(view) and (data := self._here(len(view) - done)):
            view[done : done + len(data)] = data
            done += len(data)
            self._position += len(data)
        return done

    def close(self) -> None:
        if not self.closed:
            self._drop_all()
        super().close()

    def _here(self, most_bytes: int) -> memoryview:
        """Return the bytes at the position, up to the end of its member; none at the very end."""
        if self._position < self._start:
            self._rewind()
        while self._fill(1):
            entry = self._entries[0]
            if self._position < self._start + self._length_of(entry):
                self._read_ahead()
                offset = self._position - self._start
                return memoryview(self._data_of(entry))[offset : offset + most_bytes]
            self._start += self._length_of(entry)
            # Read ahead only for sequential reads, not for a search for the next header.
            self._ahead = min(self._most_ahead, 2 * self._ahead) if entry.future else 1
            self._entries.popleft()
        return memoryview(b"")

    def _read_ahead(self) -> None:
        self._fill(self._ahead)
        for entry in islice(self._entries, self._ahead):
            self._submit(entry)

    def _fill(self, count: int) -> bool:
        """Find the next ``count`` members, as far as they exist; return whether there is one."""
        while len(self._entries) < count and (member := next(self._members, None)) is not None:
            self._entries.append(_Entry(member))
        return bool(self._entries)

    def _length_of(self, entry: _Entry) -> int:
        if entry.member.plain_bytes is not None:
            return entry.member.plain_bytes
        self._ahead = self._most_ahead
        self._read_ahead()
        return len(self._data_of(entry))

    def _data_of(self, entry: _Entry) -> bytes | bytearray:
        return self._submit(entry).result()

    def _submit(self, entry: _Entry) -> Future[bytes | bytearray]:
        if entry.future is None:
            entry.future = self._executor.submit(self._decompress, entry.member)
        return entry.future

    def _decompress(self, member: Member) -> bytes | bytearray:
        packed = os.pread(self._fd, member.length_bytes, member.place)
        if len(packed) < member.length_bytes:
            raise EOFError("it is cut off")
        return self._split.decompress(packed, member.plain_bytes)

    def _rewind(self) -> None:
        self._drop_all()
        self._members = self._split.members()
        self._start = 0
        self._ahead = 1

    def _drop_all(self) -> None:
        under_way = [entry.future for entry in self._entries if entry.future is not None]
        self._entries.clear()
        for future in under_way:
            future.cancel()
        wait(under_way)

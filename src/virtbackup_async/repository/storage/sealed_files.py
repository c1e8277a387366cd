"""Open files of an encrypted target: read anywhere, and written from start to end."""

import errno
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from threading import Lock
from typing import Final, Protocol

from virtbackup_async.errors import CorruptError, NewerVersionError
from virtbackup_async.files.refusals import reading
from virtbackup_async.repository.keys import file_format as wire
from virtbackup_async.repository.keys.file_format import (
    HEAD_BYTES,
    SEALED_SEGMENT_BYTES,
    SEGMENT_BYTES,
    FileCipher,
)
from virtbackup_async.repository.keys.keyring import Keys
from virtbackup_async.repository.storage.interface import (
    GrowingFile,
    HiddenFile,
    LeaseFile,
    OpenDirectory,
    StoredFile,
)

_KEPT_SEGMENTS: Final = 8

Read = Callable[[int, int], bytes | memoryview]


class SealedFile:
    """A ``StoredFile``. Its last segment is opened at once, so its length is what was written."""

    def __init__(self, where: str, file: StoredFile, keys: Keys, identity: wire.Identity) -> None:
        self.where = where
        self._file = file
        self._turn = Lock()
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        with reading("file", where):
            self.size_bytes = wire.content_bytes(file.size_bytes)
            self._count = wire.segments_in(file.size_bytes)
            start = file.read_up_to(HEAD_BYTES + SEALED_SEGMENT_BYTES, 0)
            self._cipher = wire.cipher_of(keys, identity, start, file.size_bytes)
            self._keep(0, self._open_one(memoryview(start)[HEAD_BYTES:], 0))
            self._segments(self._count - 1, self._count, file.read)

    def read(self, length_bytes: int, offset: int) -> bytes:
        return self._read(length_bytes, offset, self._file.read)

    def read_up_to(self, length_bytes: int, offset: int) -> bytes:
        end = min(offset + length_bytes, self.size_bytes)
        return self._read(max(0, end - offset), offset, self._file.read)

    def read_once(self, length_bytes: int, offset: int) -> bytes:
        return self._read(length_bytes, offset, self._file.read_once)

    def close(self) -> None:
        self._file.close()

    def _read(self, length_bytes: int, offset: int, read: Read) -> bytes:
        if offset + length_bytes > self.size_bytes:
            raise CorruptError("it is cut off")
        if not length_bytes:
            return b""
        first, end = offset // SEGMENT_BYTES, -(-(offset + length_bytes) // SEGMENT_BYTES)
        start = offset - first * SEGMENT_BYTES
        return self._segments(first, end, read)[start : start + length_bytes]

    def _segments(self, first: int, end: int, read: Read) -> bytes:
        """Return the content of some segments, from ``first`` up to but not including ``end``."""
        if end - first == 1 and (kept := self._kept_one(first)) is not None:
            return kept
        start = HEAD_BYTES + first * SEALED_SEGMENT_BYTES
        stop = min(HEAD_BYTES + end * SEALED_SEGMENT_BYTES, self._file.size_bytes)
        sealed = memoryview(read(stop - start, start))
        found = [
            self._open_one(sealed[place * SEALED_SEGMENT_BYTES :], first + place)
            for place in range(end - first)
        ]
        if len(found) == 1:
            self._keep(first, found[0])
        return b"".join(found)

    def _open_one(self, sealed: memoryview, number: int) -> bytes:
        is_last = number == self._count - 1
        return self._cipher.open(sealed[:SEALED_SEGMENT_BYTES], number, is_last=is_last)

    def _kept_one(self, number: int) -> bytes | None:
        with self._turn:
            if number in self._kept:
                self._kept.move_to_end(number)
            return self._kept.get(number)

    def _keep(self, number: int, data: bytes) -> None:
        with self._turn:
            self._kept[number] = data
            if len(self._kept) > _KEPT_SEGMENTS:
                self._kept.popitem(last=False)


def readable_segments(
    file: StoredFile, keys: Keys, identity: wire.Identity
) -> Iterator[tuple[int, bytes]]:
    """Yield the segments of a damaged file that can be opened, with their offsets. Blocks."""
    start = file.read_up_to(HEAD_BYTES + SEALED_SEGMENT_BYTES, 0)
    try:
        cipher = wire.cipher_of(keys, identity, start, file.size_bytes)
    except (CorruptError, NewerVersionError):
        return
    for number, at in enumerate(range(HEAD_BYTES, file.size_bytes, SEALED_SEGMENT_BYTES)):
        sealed = file.read_up_to(SEALED_SEGMENT_BYTES, at)
        # Of a file that is cut off, the last one that is there is not the last one.
        for is_last in (False, True):
            with suppress(CorruptError):
                yield number * SEGMENT_BYTES, cipher.open(sealed, number, is_last=is_last)
                break


class Sealed(Protocol):
    """A storage that knows sealed names and files; ``sealed.py`` has it."""

    def where(self, name: str = "") -> str: ...

    def sealed_step(self, directory: str, step: str) -> str: ...

    def opened_step(self, directory: str, step: str) -> str | None: ...

    def opened_file(self, name: str, sealed: bytes) -> bytes: ...


class SealedDirectory:
    """An ``OpenDirectory``."""

    def __init__(self, directory: OpenDirectory, storage: Sealed, name: str) -> None:
        self._directory = directory
        self._storage = storage
        self._name = name
        self.close = directory.close

    def names(self) -> frozenset[str]:
        found = (self._storage.opened_step(self._name, step) for step in self._directory.names())
        return frozenset(step for step in found if step is not None)

    def read(self, name: str, max_bytes: int) -> bytes:
        ((_, found),) = self.read_each([name], max_bytes)
        if isinstance(found, OSError):
            raise found
        return found

    def read_each(
        self, names: Iterable[str], max_bytes: int
    ) -> Iterator[tuple[str, bytes | OSError]]:
        asked: deque[str] = deque()

        def sealed() -> Iterator[str]:
            for name in names:
                asked.append(name)
                yield self._storage.sealed_step(self._name, name)

        at_most = wire.sealed_bytes(max_bytes)
        for _, found in self._directory.read_each(sealed(), at_most):
            name = asked.popleft()
            yield name, self._opened(name, found)

    def _opened(self, name: str, found: bytes | OSError) -> bytes | OSError:
        path = f"{self._name}/{name}" if self._name else name
        where = self._storage.where(path)
        if isinstance(found, OSError):
            return type(found)(found.errno, found.strerror, where)
        try:
            return self._storage.opened_file(path, found)
        except CorruptError as error:
            return OSError(errno.EIO, error.message, where)


class _Segments:
    """Content on its way into a file: sealed in whole segments, the last one at the end."""

    def __init__(self, append: Callable[[bytes], None], cipher: FileCipher) -> None:
        self._append = append
        self._cipher = cipher
        self._waiting = bytearray()
        self._number = 0
        self._is_complete = False

    def append(self, data: bytes | bytearray) -> None:
        self._waiting += data
        # The last segment is not known as such before the end.
        while len(self._waiting) > SEGMENT_BYTES:
            self._seal(is_last=False)

    def finish(self) -> None:
        """Append the last segment; only the first call does."""
        if not self._is_complete:
            self._is_complete = True
            self._seal(is_last=True)

    def _seal(self, *, is_last: bool) -> None:
        sealed = self._cipher.seal(
            bytes(self._waiting[:SEGMENT_BYTES]), self._number, is_last=is_last
        )
        self._append(sealed if self._number else self._cipher.head + sealed)
        del self._waiting[:SEGMENT_BYTES]
        self._number += 1


class SealedGrowingFile:
    """A ``GrowingFile``: what others see before it is finished opens for nobody."""

    def __init__(self, file: GrowingFile, cipher: FileCipher) -> None:
        self._file = file
        self._segments = _Segments(file.append, cipher)
        self.append = self._segments.append
        self.discard = file.discard

    def finish_soon(self) -> None:
        self._segments.finish()
        self._file.finish_soon()

    def finish(self) -> None:
        self._segments.finish()
        self._file.finish()


class SealedHiddenFile:
    """A ``HiddenFile``."""

    def __init__(self, file: HiddenFile, cipher: FileCipher) -> None:
        self._file = file
        self._segments = _Segments(file.append, cipher)
        self.append = self._segments.append
        self.publish = file.publish
        self.publish_exclusively = file.publish_exclusively
        self.discard = file.discard

    def finish(self) -> None:
        self._segments.finish()
        self._file.finish()


class SealedLease:
    """A ``LeaseFile`` with a sealed name."""

    def __init__(self, where: str, file: LeaseFile) -> None:
        self.where = where
        self.refresh = file.refresh
        self.is_held = file.is_held
        self.remove = file.remove

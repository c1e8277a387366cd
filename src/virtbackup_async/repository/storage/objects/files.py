"""Open files of a target in an object store: read by ranges, written at their end.

A file that is written is in this process until it is finished: a pack in memory, a hidden file, of
which a map or a segment can be large, in an unnamed local file once it is longer than some MiB.
"""

import errno
import io
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock, Semaphore
from typing import Final, TypeVar

from virtbackup_async.errors import CorruptError, StorageError
from virtbackup_async.files.refusals import storage_error
from virtbackup_async.repository.storage.objects.answers import Found, Meta
from virtbackup_async.repository.storage.objects.calls import ObjectCalls
from virtbackup_async.repository.storage.objects.requests import CallFailedError

T = TypeVar("T")
UPLOADS_AT_ONCE: Final = 2
"""So many packs are sent at once; one more is filled meanwhile by each writer."""
FIRST_BYTES: Final = 256 * 1024
_MOST_AHEAD_BYTES: Final = 4 << 20
_NEAR_BYTES: Final = 1 << 20
_IN_MEMORY_BYTES: Final = 8 << 20
_ONE_PUT_BYTES: Final = 128 << 20
_MISSING: Final = (errno.ENOENT, "No such file or directory")


class ObjectFile:
    """A ``StoredFile``: ranges of an object, of which the next ones are read ahead.

    A file up to ``FIRST_BYTES`` is in memory. Of a longer one, a range fails with FileNotFoundError
    once the object has gone, and with StorageError once it is another one.
    """

    def __init__(self, calls: ObjectCalls, name: str, where: str, beginning: Found) -> None:
        self.where = where
        self.size_bytes = beginning.meta.size_bytes
        self._calls = calls
        self._name = name
        self._e_tag = beginning.meta.e_tag
        self._offset = 0
        self._piece = beginning.data
        self._ahead_bytes = FIRST_BYTES
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
        with self._turn:
            if not self._has(offset, length):
                self._read_piece(offset, length)
            first = offset - self._offset
            return self._piece[first : first + length]

    read_once = read

    def close(self) -> None:
        self._piece = b""

    def _has(self, offset: int, length: int) -> bool:
        end = self._offset + len(self._piece)
        return self._offset <= offset and offset + length <= end

    def _read_piece(self, offset: int, length: int) -> None:
        """Read a range, and more if the ranges follow each other."""
        end = self._offset + len(self._piece)
        follows = self._offset <= offset <= end + _NEAR_BYTES
        self._ahead_bytes = min(2 * self._ahead_bytes, _MOST_AHEAD_BYTES) if follows else 0
        wanted = min(max(length, self._ahead_bytes), self.size_bytes - offset)
        try:
            found = self._calls.get_range(self._name, offset, wanted, self._e_tag)
        except CallFailedError as failed:
            raise StorageError(f"cannot read {self.where}: it was replaced") from failed
        if found is None:
            raise FileNotFoundError(*_MISSING, self.where)
        self._ahead_bytes = max(self._ahead_bytes, FIRST_BYTES)
        self._offset, self._piece = offset, found.data


class Uploads:
    """Sends a few packs at once, in threads of its own."""

    def __init__(self) -> None:
        self._room = Semaphore(UPLOADS_AT_ONCE)
        self._threads = ThreadPoolExecutor(UPLOADS_AT_ONCE, thread_name_prefix="upload")

    def begin(self, send: Callable[[], T]) -> "Future[T]":
        """Begin to send, as soon as there is room. Blocks."""
        self._room.acquire()
        try:
            future = self._threads.submit(send)
        except BaseException:
            self._room.release()
            raise
        future.add_done_callback(lambda _: self._room.release())
        return future


class GrowingObject:
    """A ``GrowingFile``: in memory until it is full, then one request."""

    def __init__(self, calls: ObjectCalls, uploads: Uploads, name: str, where: str) -> None:
        self._calls = calls
        self._uploads = uploads
        self._name = name
        self._where = where
        self._parts: list[bytes] = []
        self._is_open = True
        self._sent: Future[Meta] | None = None

    def append(self, data: bytes | bytearray) -> None:
        if not self._is_open:
            raise StorageError(f"{self._where} was closed")
        self._parts.append(bytes(data))

    def finish_soon(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        parts, self._parts = self._parts, []
        self._sent = self._uploads.begin(lambda: self._calls.put_new(self._name, parts))

    def finish(self) -> None:
        self.finish_soon()
        if self._sent is not None:
            _named(self._sent.result, self._where)

    def discard(self) -> None:
        self._is_open = False
        self._parts.clear()
        sent, self._sent = self._sent, None
        # A name that another one has is not this object's; after any other error it may be there.
        if sent is not None and not isinstance(sent.exception(), FileExistsError):
            self._calls.delete(self._name)


class HiddenObject:
    """A ``HiddenFile``: on this host until it is published."""

    def __init__(self, calls: ObjectCalls, name: str, where: str) -> None:
        self._calls = calls
        self._name = name
        self._where = where
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115

    def append(self, data: bytes | bytearray) -> None:
        try:
            self._file.write(data)
        except ValueError as error:
            raise StorageError(f"{self._where} was closed") from error
        except OSError as error:
            raise storage_error("write", tempfile.gettempdir(), error) from error

    def finish(self) -> None:
        """Nothing is durable before it is published."""

    def publish(self, on_named: Callable[[], None]) -> None:
        try:
            self._send()
        except FileExistsError as error:
            raise StorageError(f"cannot create {self._where}: it exists") from error
        except BaseException:
            # The answer may be lost, or the object still on its way.
            on_named()
            raise
        finally:
            self._file.close()
        on_named()

    def publish_exclusively(self) -> None:
        try:
            _named(self._send, self._where)
        finally:
            self._file.close()

    def discard(self) -> None:
        self._file.close()

    def _send(self) -> None:
        size_bytes = self._file.seek(0, io.SEEK_END)
        self._file.seek(0)
        if size_bytes <= _ONE_PUT_BYTES:
            self._calls.put_new(self._name, [self._file.read()])
            return
        if self._calls.head(self._name) is not None:
            raise FileExistsError
        self._calls.put_large(self._name, self._file, size_bytes)


def _named(create: Callable[[], object], where: str) -> None:
    """Name the file in the error of a name that is taken."""
    try:
        create()
    except FileExistsError as error:
        raise StorageError(f"cannot create {where}: it exists") from error

"""New files of a target in an object store: sent when they are complete.

A file that is written is in this process until it is finished: a pack in memory, a hidden file, of
which a map or a segment can be large, in an unnamed local file once it is longer than some MiB.
"""

import io
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Semaphore
from typing import Final, TypeVar

from virtbackup_async.errors import StorageError
from virtbackup_async.files.refusals import storage_error
from virtbackup_async.repository.storage.objects.answers import Meta
from virtbackup_async.repository.storage.objects.calls import ObjectCalls

T = TypeVar("T")
UPLOADS_AT_ONCE: Final = 2
"""So many packs are sent at once; one more is filled meanwhile by each writer."""
_IN_MEMORY_BYTES: Final = 8 << 20
_ONE_PUT_BYTES: Final = 128 << 20


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

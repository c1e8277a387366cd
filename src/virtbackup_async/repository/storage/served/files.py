"""Open files of a target that a store server serves: read, written, and held as leases.

Bytes that are written are sent at once, and up to ``_AHEAD_BYTES`` of them are under way, so that
the time to the server and back is waited for once a file, not once a call.
"""

import errno
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from functools import partial
from itertools import islice
from typing import Final, TypeVar

from virtbackup_async.errors import CorruptError, StorageError
from virtbackup_async.repository.storage.served import messages as m
from virtbackup_async.repository.storage.served.connection import Call, Connection, LostError
from virtbackup_async.repository.storage.served.frames import PIECE_BYTES
from virtbackup_async.repository.storage.served.link import (
    Link,
    broken,
    by_handle,
    close_handle,
)

T = TypeVar("T")
_AHEAD_BYTES: Final = 8 << 20
_READS_AHEAD: Final = 16


class _Reopened:
    """Something that is open for reading, and opened again when the connection was lost."""

    def __init__(self, link: Link, kind: type[m.Named_], name: str, where: str) -> None:
        self.where = where
        self._link = link
        self._kind = kind
        self._name = name
        self._first: m.Opened | None = None
        self._connection: Connection | None = None
        self._handle = 0
        link.again("open", where, self._open)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            close_handle(connection, self._handle)

    def _read(self, attempt: Callable[[Connection, int], T]) -> T:
        def on(connection: Connection) -> T:
            if self._connection is not connection:
                self._open(connection)
            return attempt(connection, self._handle)

        return self._link.again("read", self.where, on)

    def _open(self, connection: Connection) -> None:
        request = partial(self._kind, name=m.to_wire(self._name))
        opened = self._link.ask(connection, request, m.Opened, self.where)
        self._first = self._first or opened
        if (opened.version, opened.size_bytes) != (self._first.version, self._first.size_bytes):
            close_handle(connection, opened.handle)
            raise OSError(errno.ESTALE, "it was replaced while the connection was lost", self.where)
        self._connection, self._handle = connection, opened.handle


class ServedFile(_Reopened):
    """A ``StoredFile``."""

    def __init__(self, link: Link, name: str, where: str) -> None:
        super().__init__(link, m.OpenFile, name, where)
        self.size_bytes = 0 if self._first is None else self._first.size_bytes

    def read(self, length_bytes: int, offset: int) -> bytes:
        return self._range(length_bytes, offset, "whole")

    def read_up_to(self, length_bytes: int, offset: int) -> bytes:
        length = min(length_bytes, self.size_bytes - offset)
        return self._range(length, offset, "up_to") if length > 0 else b""

    def read_once(self, length_bytes: int, offset: int) -> bytes:
        return self._range(length_bytes, offset, "once")

    def _range(self, length: int, offset: int, how: str) -> bytes:
        def attempt(connection: Connection, handle: int) -> bytes:
            requests = [
                partial(
                    m.ReadAt,
                    handle=handle,
                    length=min(PIECE_BYTES, offset + length - begin),
                    offset=begin,
                    how=how,
                )
                for begin in range(offset, offset + length, PIECE_BYTES)
            ]
            parts = self._link.answers(connection, requests, m.Part, self.where)
            return b"".join(part.data for part in parts)

        data = self._read(attempt)
        if len(data) > length:
            raise broken(self.where)
        if len(data) < length and how != "up_to":
            raise CorruptError("it is cut off")
        return data


class ServedDirectory(_Reopened):
    """An ``OpenDirectory``."""

    def __init__(self, link: Link, name: str, where: str) -> None:
        super().__init__(link, m.OpenDirectory, name, where)

    def names(self) -> frozenset[str]:
        def attempt(connection: Connection, handle: int) -> frozenset[str]:
            call = connection.begin(by_handle(m.DirectoryNames, handle))
            names = Collected(self.where)
            self._link.answer(connection, call, m.Done, self.where, names.add)
            return frozenset(names.names)

        return self._read(attempt)

    def read(self, name: str, max_bytes: int) -> bytes:
        def attempt(connection: Connection, handle: int) -> bytes:
            return self._answer(connection, self._begin(connection, handle, name, max_bytes), name)

        return self._read(attempt)

    def read_each(
        self, names: Iterable[str], max_bytes: int
    ) -> Iterator[tuple[str, bytes | OSError]]:
        coming = iter(names)
        while some := tuple(islice(coming, _READS_AHEAD)):
            begun = [self._begun(name, max_bytes) for name in some]
            for name, begin in zip(some, begun, strict=True):
                yield name, self._outcome(name, begin, max_bytes)

    def _begun(self, name: str, max_bytes: int) -> "_Begun | None":
        with suppress(LostError, StorageError):
            return self._read(
                lambda connection, handle: (
                    connection,
                    self._begin(connection, handle, name, max_bytes),
                )
            )
        return None

    def _begin(self, connection: Connection, handle: int, name: str, max_bytes: int) -> Call:
        step = m.to_wire(name)
        return connection.begin(lambda id_: m.DirectoryRead(id_, handle, step, max_bytes))

    def _answer(self, connection: Connection, call: Call, name: str) -> bytes:
        where = f"{self.where}/{name}"
        data = Collected(where)
        self._link.answer(connection, call, m.Done, where, data.add)
        return bytes(data.data)

    def _outcome(self, name: str, begun: "_Begun | None", max_bytes: int) -> bytes | OSError:
        try:
            if begun is not None:
                with suppress(LostError):
                    return self._answer(*begun, name)
            return self.read(name, max_bytes)
        except OSError as error:
            return error


_Begun = tuple[Connection, Call]


class Collected:
    """The parts of an answer; a server that sends too much, or no plain names, is refused."""

    def __init__(self, where: str, most_bytes: int = m.MAX_WHOLE_BYTES) -> None:
        self.data = bytearray()
        self.names: list[str] = []
        self._where = where
        self._most_bytes = most_bytes

    def add(self, reply: m.Reply) -> None:
        """Add a part."""
        if not isinstance(reply, m.Part):
            raise broken(self._where)
        self.data += reply.data
        names = [m.from_wire(name) for name in reply.names]
        if len(self.data) > self._most_bytes or not all(map(_is_plain, names)):
            raise broken(self._where)
        self.names += names


def _is_plain(name: str) -> bool:
    return name not in {"", ".", ".."} and "/" not in name and "\0" not in name


class _Sent:
    """A file that is being written; the server discards it if the connection is lost."""

    def __init__(self, link: Link, kind: type[m.Named_], name: str, where: str) -> None:
        self._link = link
        self._name = name
        self._where = where
        self._under_way: deque[tuple[Call, int]] = deque()
        self._under_way_bytes = 0
        self._is_open = True
        request = partial(kind, name=m.to_wire(name))

        def create(connection: Connection) -> tuple[Connection, int]:
            return connection, link.ask(connection, request, m.Opened, where).handle

        self._connection, self._handle = link.change("create", where, create, again=False)

    def append(self, data: bytes | bytearray) -> None:
        """Send some bytes; the error of these may be raised by a later call."""
        if not self._is_open:
            raise StorageError(f"{self._where} was closed")
        with memoryview(data) as view:
            for begin in range(0, len(view), PIECE_BYTES):
                self._append(bytes(view[begin : begin + PIECE_BYTES]))

    def _append(self, piece: bytes) -> None:
        with self._changing("write"):
            call = self._connection.begin(lambda id_: m.Append(id_, self._handle, piece))
            self._under_way.append((call, len(piece)))
            self._under_way_bytes += len(piece)
            self._settle(_AHEAD_BYTES)

    def _settle(self, most_bytes: int = 0) -> None:
        """Wait until no more than so many bytes are under way."""
        while self._under_way_bytes > most_bytes or (self._under_way and not most_bytes):
            call, length = self._under_way.popleft()
            self._under_way_bytes -= length
            self._link.answer(self._connection, call, m.Done, self._where)

    def _ask(self, doing: str, kind: type[m.Held_]) -> None:
        with self._changing(doing):
            self._settle()
            self._link.ask(self._connection, by_handle(kind, self._handle), m.Done, self._where)

    def _drop(self) -> None:
        """Discard the file at the server, unless that did it when the connection was lost."""
        for call, _ in self._under_way:
            self._connection.abandon(call)
        self._under_way.clear()
        self._under_way_bytes = 0
        discard = by_handle(m.Discard, self._handle)
        with suppress(LostError):
            self._link.ask(self._connection, discard, m.Done, self._where)
        close_handle(self._connection, self._handle)

    def _changing(self, doing: str) -> AbstractContextManager[None]:
        return self._link.changing(doing, self._where)


class ServedGrowingFile(_Sent):
    """A ``GrowingFile``."""

    def __init__(self, link: Link, name: str, where: str) -> None:
        super().__init__(link, m.Create, name, where)
        self._finishing: Call | None = None
        self._is_named = False

    def finish_soon(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        with self._changing("write"):
            self._settle()
            self._is_named = True
            self._finishing = self._connection.begin(by_handle(m.Finish, self._handle))

    def finish(self) -> None:
        self.finish_soon()
        finishing, self._finishing = self._finishing, None
        if finishing is not None:
            with self._changing("write"):
                self._link.answer(self._connection, finishing, m.Done, self._where)

    def discard(self) -> None:
        """Discard it; a finished one stays where this client may not remove it."""
        self._is_open = False
        finishing, self._finishing = self._finishing, None
        if finishing is not None:
            with suppress(LostError, StorageError, OSError):
                self._link.answer(self._connection, finishing, m.Done, self._where)
        if not self._is_named:
            with suppress(StorageError, OSError):
                self._drop()
        elif not self._connection.hello.append_only:
            # The server might have finished it before the connection was lost.
            self._link.remove(self._name, self._where)


class ServedHiddenFile(_Sent):
    """A ``HiddenFile``."""

    def __init__(self, link: Link, name: str, where: str) -> None:
        super().__init__(link, m.CreateHidden, name, where)
        self._has_name = False

    def finish(self) -> None:
        if self._is_open:
            self._is_open = False
            self._ask("write", m.Finish)

    def publish(self, on_named: Callable[[], None]) -> None:
        is_told = False

        def tell(_: m.Reply | None = None) -> None:
            nonlocal is_told
            if not is_told:
                is_told = True
                on_named()

        with self._changing("write"):
            call = self._connection.begin(by_handle(m.Publish, self._handle))
            try:
                self._link.answer(self._connection, call, m.Done, self._where, tell)
            except LostError:
                tell()  # nobody knows
                raise
        self._has_name = True
        tell()

    def publish_exclusively(self) -> None:
        self._ask("create", m.PublishExclusively)
        self._has_name = True

    def discard(self) -> None:
        self._is_open = False
        if not self._has_name:
            self._has_name = True
            with suppress(StorageError, OSError):
                self._drop()


class ServedHeld:
    """A ``HeldDirectory``: held as long as the connection lasts."""

    def __init__(self, link: Link, connection: Connection, handle: int, where: str) -> None:
        self._link = link
        self._connection = connection
        self._handle = handle
        link.hold(self, connection, where)

    def close(self) -> None:
        self._link.release(self)
        # Nobody else holds the directory before this is done.
        with suppress(LostError, StorageError, OSError):
            self._link.ask(self._connection, by_handle(m.Close, self._handle), m.Done, "")


class ServedLease:
    """A ``LeaseFile``: the server removes it when the connection is lost."""

    def __init__(self, link: Link, connection: Connection, handle: int, where: str) -> None:
        self.where = where
        self._link = link
        self._connection = connection
        self._handle = handle

    def refresh(self) -> None:
        with suppress(LostError, StorageError, OSError):
            self._ask(m.Refresh)

    def is_held(self) -> bool:
        with self._link.changing("hold", self.where):
            return self._ask(m.IsHeld).value is True

    def remove(self) -> None:
        with suppress(LostError, StorageError, OSError):
            self._ask(m.Close)

    def _ask(self, kind: type[m.Held_]) -> m.Done:
        return self._link.ask(self._connection, by_handle(kind, self._handle), m.Done, self.where)

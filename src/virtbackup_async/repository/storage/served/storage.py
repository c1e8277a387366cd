"""A target that a store server serves, mostly on another machine over ``ssh``.

Every verb is one request, or a few that are under way at once. When the connection is lost, the
next request makes another one, with patience (``link.py``). A request that got no answer

*is sent again* where that comes to the same: reading and listing; writing a whole file, removing,
overwriting, making a directory; ``put_new``, which then compares what is there with what it put;
*fails* else: renaming, taking a lease, and all that needs a file that is being written, since the
server has discarded hidden and unfinished files, leases and locks with the connection.

A file that is read is opened again if it is still the same. While something is thought to be held
that the server has released, nothing is changed.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from functools import partial
from threading import Lock
from typing import Final, TypeVar

from virtbackup_async.errors import StorageError
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository.storage.held_change import change_held
from virtbackup_async.repository.storage.interface import (
    Kind,
    LeaseLook,
    Status,
    StoredFile,
)
from virtbackup_async.repository.storage.served import messages as m
from virtbackup_async.repository.storage.served.connection import Call, Connection
from virtbackup_async.repository.storage.served.copied import copied, is_copied
from virtbackup_async.repository.storage.served.files import (
    Collected,
    ServedDirectory,
    ServedFile,
    ServedGrowingFile,
    ServedHeld,
    ServedHiddenFile,
    ServedLease,
)
from virtbackup_async.repository.storage.served.frames import PIECE_BYTES
from virtbackup_async.repository.storage.served.link import Link, broken

R = TypeVar("R", bound=m.Reply)
_ANSWER_BYTES: Final = 512 * 1024
_READS_AT_ONCE: Final = 8


class ServedStorage:
    """The files of a target that a server serves.

    Attributes:
        location: of the target.
        link: the way to the server.
    """

    def __init__(self, location: StorageLocation, link: Link) -> None:
        self.location = location
        self.link = link
        self._looking = Lock()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ServedStorage) and self.location == other.location

    def __hash__(self) -> int:
        return hash(self.location)

    @property
    def reads_at_once(self) -> int:
        return _READS_AT_ONCE

    @property
    def append_only(self) -> bool:
        """Whether the server lets this client only add files. Blocks."""
        return self.link.again("reach", self.where(), lambda conn: conn.hello.append_only)

    def where(self, name: str = "") -> str:
        return f"{self.location}/{name}" if name else str(self.location)

    def names(self, directory: str, kinds: Container[Kind]) -> list[str]:
        where = self.where(directory)
        wanted = tuple(kind.value for kind in Kind if kind in kinds)

        def attempt(connection: Connection) -> list[str]:
            found = Collected(where)
            call = connection.begin(lambda id_: m.Names(id_, m.to_wire(directory), wanted))
            self.link.answer(connection, call, m.Done, where, found.add)
            return sorted(found.names)

        return self.link.again("read", where, attempt)

    def sizes(self, names: Iterable[str]) -> dict[str, int]:
        wanted = sorted(names)

        def attempt(connection: Connection) -> dict[str, int]:
            groups = list(_groups(wanted))
            requests = [partial(m.Sizes, names=tuple(map(m.to_wire, some))) for some in groups]
            answers = self.link.answers(connection, requests, m.Done, self.where())
            found: dict[str, int] = {}
            for some, answer in zip(groups, answers, strict=True):
                if len(answer.sizes) != len(some):
                    raise broken(self.where())
                sizes = zip(some, answer.sizes, strict=True)
                found |= {name: size for name, size in sizes if size is not None}
            return found

        return self.link.again("read", self.where(), attempt)

    def status(self, name: str) -> Status:
        found = self._ask("read", name, m.StatusOf, m.Opened)
        return Status(found.size_bytes, found.version, found.is_file, found.modified_s)

    def exists(self, name: str) -> bool:
        return self._ask("read", name, m.Exists, m.Done).value is True

    def open(self, name: str) -> StoredFile:
        file = ServedFile(self.link, name, self.where(name))
        return copied(file) if is_copied(name) else file

    def open_directory(self, name: str) -> ServedDirectory:
        return ServedDirectory(self.link, name, self.where(name))

    def hold(self, directory: str) -> ServedHeld | None:
        where = self.where(directory)

        def attempt(connection: Connection) -> ServedHeld | None:
            request = partial(m.Hold, name=m.to_wire(directory))
            reply = self.link.ask(connection, request, m.Reply, where)
            if isinstance(reply, m.Opened):
                return ServedHeld(self.link, connection, reply.handle, where)
            return None

        return self.link.change("open", where, attempt, again=True)

    def read(self, name: str, max_bytes: int) -> bytes | None:
        where = self.where(name)

        def attempt(connection: Connection) -> bytes | None:
            found = Collected(where, max_bytes)
            most = min(max_bytes, m.MAX_WHOLE_BYTES)
            call = connection.begin(lambda id_: m.ReadWhole(id_, m.to_wire(name), most))
            answer = self.link.answer(connection, call, m.Done, where, found.add)
            return bytes(found.data) if answer.value is True else None

        return self.link.again("read", where, attempt)

    def make_directory(self, name: str) -> None:
        self._change("create", name, m.MakeDirectory)

    def sync_names(self, directory: str) -> None:
        self._change("sync", directory, m.SyncNames)

    def replace(self, name: str, data: bytes, *, keep_owner: bool = False) -> None:
        self._write(name, partial(m.Replace, keep_owner=keep_owner), data)

    def change(self, name: str, max_bytes: int, change: Callable[[bytes], bytes]) -> None:
        change_held(self, name, max_bytes, change)

    def rename(self, name: str, new: str) -> None:
        self._change("rename", name, partial(m.Rename, new=m.to_wire(new)), again=False)

    def put_new(self, name: str, data: bytes) -> None:
        attempts = 0

        def attempt(connection: Connection) -> None:
            nonlocal attempts
            attempts += 1
            try:
                self._send(connection, name, m.PutNew, data)
            except FileExistsError:
                # An answer was lost: the file may be the one of the attempt before.
                if attempts == 1 or self.read(name, len(data) + 1) != data:
                    raise

        self.link.change("write", self.where(name), attempt, again=True)

    def overwrite(self, name: str, data: bytes) -> None:
        self._write(name, m.Overwrite, data)

    def create(self, name: str) -> ServedGrowingFile:
        return ServedGrowingFile(self.link, name, self.where(name))

    def create_hidden(self, name: str) -> ServedHiddenFile:
        return ServedHiddenFile(self.link, name, self.where(name))

    def remove(self, name: str) -> None:
        self.link.remove(name, self.where(name))

    def take_lease(self, name: str, content: bytes, directories: Sequence[str]) -> ServedLease:
        where = self.where(name)
        below = tuple(map(m.to_wire, directories))

        def attempt(connection: Connection) -> ServedLease:
            request = partial(m.TakeLease, name=m.to_wire(name), content=content, directories=below)
            reply = self.link.ask(connection, request, m.Opened, where)
            return ServedLease(self.link, connection, reply.handle, where)

        return self.link.change("write", where, attempt, again=False)

    def remove_lease_if(self, name: str, is_dead: Callable[[LeaseLook], bool]) -> None:
        where = self.where(name)

        def attempt(connection: Connection) -> None:
            call = connection.begin(partial(m.LookAtLease, name=m.to_wire(name)))
            decide = partial(self._decide, connection, call, is_dead)
            self.link.answer(connection, call, m.Done, where, decide)

        # One at a time: the server keeps a thread waiting for each decision.
        with self._looking:
            self.link.again("read", where, attempt)

    def clock(self, directory: str) -> float:
        value = self._ask("read", directory, m.Clock, m.Done).value
        if not isinstance(value, int | float):
            raise broken(self.where(directory))
        return value

    def remove_temporary_files(self, directories: Iterable[str], before_s: float) -> None:
        names = tuple(map(m.to_wire, directories))
        self._change_all(partial(m.RemoveTemporary, names=names, before_s=before_s))

    def free_bytes(self) -> int:
        reply = self.link.again(
            "read", self.where(), lambda c: self.link.ask(c, m.FreeBytes, m.Done, self.where())
        )
        if not isinstance(reply.value, int):
            raise broken(self.where())
        return reply.value

    def keep_reserve(self) -> None:
        try:
            self._change_all(m.KeepReserve)
        except StorageError:
            return

    def release_reserve(self) -> bool:
        return self._change_all(m.ReleaseReserve).value is True

    def _decide(
        self,
        connection: Connection,
        call: Call,
        is_dead: Callable[[LeaseLook], bool],
        reply: m.Reply,
    ) -> None:
        if not isinstance(reply, m.Look):
            raise broken(self.where())
        decision = False
        try:
            decision = is_dead(
                LeaseLook(reply.content, reply.modified_s, reply.is_locked, reply.expiry_s)
            )
        finally:
            connection.send(m.Decision(call.id, decision))

    def _ask(self, doing: str, name: str, request: Callable[..., m.Request], kind: type[R]) -> R:
        where = self.where(name)
        make = partial(request, name=m.to_wire(name))
        return self.link.again(doing, where, lambda c: self.link.ask(c, make, kind, where))

    def _change(
        self, doing: str, name: str, request: Callable[..., m.Request], *, again: bool = True
    ) -> None:
        where = self.where(name)
        make = partial(request, name=m.to_wire(name))
        self.link.change(doing, where, lambda c: self.link.ask(c, make, m.Done, where), again=again)

    def _change_all(self, request: Callable[[int], m.Request]) -> m.Done:
        where = self.where()
        return self.link.change(
            "write", where, lambda c: self.link.ask(c, request, m.Done, where), again=True
        )

    def _write(self, name: str, request: Callable[..., m.Request], data: bytes) -> None:
        def attempt(connection: Connection) -> None:
            self._send(connection, name, request, data)

        self.link.change("write", self.where(name), attempt, again=True)

    def _send(
        self, connection: Connection, name: str, request: Callable[..., m.Request], data: bytes
    ) -> None:
        """Send a whole file: all but its last piece before the request."""
        where = self.where(name)
        if len(data) > m.MAX_WHOLE_BYTES:
            raise StorageError(f"cannot write {where}: it is too long")
        last = max(len(data) - 1, 0) // PIECE_BYTES * PIECE_BYTES

        def make(id_: int) -> m.Request:
            for begin in range(0, last, PIECE_BYTES):
                connection.send(m.More(id_, data[begin : begin + PIECE_BYTES]))
            return request(id_, name=m.to_wire(name), data=data[last:])

        self.link.ask(connection, make, m.Done, where)


def _groups(names: Sequence[str]) -> Iterator[list[str]]:
    """Yield the names in groups that each fit into a message."""
    group: list[str] = []
    length = 0
    for name in names:
        length += len(m.to_wire(name)) + 8
        if group and (length > _ANSWER_BYTES or len(group) == m.MAX_NAMES):
            yield group
            group, length = [], len(name)
        group.append(name)
    if group:
        yield group

"""The way to a store server: one connection at a time, made again with patience when it is lost.

``again`` is for what comes to the same if the server does it twice, ``once`` for all else.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from threading import Lock
from time import sleep
from typing import Final, TypeVar

from virtbackup_async.errors import StorageError
from virtbackup_async.files.refusals import storage_error
from virtbackup_async.repository.storage.served.connection import Call, Connection, LostError
from virtbackup_async.repository.storage.served.failures import error_of
from virtbackup_async.repository.storage.served.messages import (
    ABILITIES,
    Close,
    Done,
    Failed,
    Held_,
    Remove,
    Reply,
    Request,
    is_last,
    to_wire,
)

T = TypeVar("T")
R = TypeVar("R", bound=Reply)
PAUSES_S: Final = (0.0, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""How long to wait before each attempt to connect again: for about a minute."""
_TRIES: Final = 3
_AT_ONCE: Final = 16


class Link:
    """The way to a server; any thread may use it."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        root: str,
        pauses_s: Iterable[float] = PAUSES_S,
        pause: Callable[[float], None] = sleep,
    ) -> None:
        """Connect to nothing yet.

        Args:
            connect: makes a connection, or raises LostError.
            root: how this side names the target in messages.
            pauses_s: how long to wait before each attempt to connect again.
            pause: waits.
        """
        self.root = root
        self._connect = connect
        self._pauses_s = tuple(pauses_s)
        self._pause = pause
        self._connection: Connection | None = None
        self._turn = Lock()
        self._held: dict[object, tuple[Connection, str]] = {}

    def connection(self) -> Connection:
        """Return a connection that is not known to be lost. Blocks.

        Raises:
            StorageError: none can be made.
        """
        with self._turn:
            if self._connection is not None and not self._connection.is_lost:
                return self._connection
            # A server that was there a moment ago may be restarting; one that never was is not.
            pauses = self._pauses_s if self._connection is not None else (0.0,)
            self._connection = None
            self._connection = self._made(pauses)
            return self._connection

    def again(self, doing: str, where: str, attempt: Callable[[Connection], T]) -> T:
        """Do something on a connection; if that is lost, once more on another one."""
        for _ in range(_TRIES - 1):
            with suppress(LostError):
                return attempt(self.connection())
        return self.once(doing, where, attempt)

    def once(self, doing: str, where: str, attempt: Callable[[Connection], T]) -> T:
        """Do something on a connection; StorageError if that is lost."""
        connection = self.connection()
        try:
            return attempt(connection)
        except LostError as lost:
            raise lost_error(doing, where, lost) from lost

    def change(
        self, doing: str, where: str, attempt: Callable[[Connection], T], *, again: bool
    ) -> T:
        """Change something on a connection, again on another one if it may be done twice.

        Raises:
            StorageError: it cannot be done, or the connection was lost.
        """

        def checked(connection: Connection) -> T:
            self.check_held()
            return attempt(connection)

        with self.changing(doing, where):
            return (self.again if again else self.once)(doing, where, checked)

    @contextmanager
    def changing(self, doing: str, where: str) -> Iterator[None]:
        """Turn all errors of a change but FileExistsError into StorageError."""
        try:
            yield
        except LostError as lost:
            raise lost_error(doing, where, lost) from lost
        except FileExistsError:
            raise
        except OSError as error:
            raise storage_error(doing, where, error) from error

    def remove(self, name: str, where: str) -> None:
        """Remove a file; StorageError if that fails."""
        request = partial(Remove, name=to_wire(name))
        self.change("remove", where, lambda conn: self.ask(conn, request, Done, where), again=True)

    def ask(
        self, connection: Connection, request: Callable[[int], Request], kind: type[R], where: str
    ) -> R:
        """Return the answer to a request of which only the last message counts."""
        return self.answer(connection, connection.begin(request), kind, where)

    def answer(
        self,
        connection: Connection,
        call: Call,
        kind: type[R],
        where: str,
        on_reply: Callable[[Reply], None] | None = None,
    ) -> R:
        """Return the last message of an answer.

        Args:
            connection: has the request.
            call: the request.
            kind: what the last message must be.
            where: the name of the file in messages.
            on_reply: gets the messages before the last one.

        Raises:
            LostError: the connection is lost.
            Exception: as the server's storage raised it.
        """
        try:
            while not is_last(reply := call.next_reply()):
                if on_reply is not None:
                    on_reply(reply)
        finally:
            connection.abandon(call)
        if isinstance(reply, Failed):
            raise error_of(reply, where, connection.hello.root, self.root)
        if not isinstance(reply, kind):
            raise broken(where)
        return reply

    def answers(
        self,
        connection: Connection,
        requests: Iterable[Callable[[int], Request]],
        kind: type[R],
        where: str,
    ) -> Iterator[R]:
        """Yield the answers to some requests in their order; several are under way at once."""
        coming = iter(requests)
        under_way: deque[Call] = deque()
        try:
            while True:
                some = islice(coming, _AT_ONCE - len(under_way))
                under_way.extend(connection.begin(request) for request in some)
                if not under_way:
                    return
                yield self.answer(connection, under_way.popleft(), kind, where)
        finally:
            for call in under_way:
                connection.abandon(call)

    def hold(self, key: object, connection: Connection, where: str) -> None:
        """Note that the server holds something for as long as this connection lasts."""
        with self._turn:
            self._held[key] = (connection, where)

    def release(self, key: object) -> None:
        """Note that it is no longer held."""
        with self._turn:
            self._held.pop(key, None)

    def check_held(self) -> None:
        """Check that the server holds all that is thought to be held, before a change.

        Raises:
            StorageError: it released something, since the connection was lost.
        """
        with self._turn:
            for connection, where in self._held.values():
                if connection.is_lost:
                    raise StorageError(f"the connection was lost while {where} was held")

    def close(self) -> None:
        """Close the connection; the next request makes another. Blocks."""
        with self._turn:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _made(self, pauses: Iterable[float]) -> Connection:
        last: LostError | None = None
        for pause in pauses:
            if pause:
                self._pause(pause)
            try:
                connection = self._connect()
            except LostError as lost:
                last = lost
                if lost.is_final:
                    break
                continue
            if not set(ABILITIES) <= set(connection.hello.abilities):
                program = connection.hello.program
                connection.close()
                last = LostError(f"its program is of another version, {program!r:.40}")
                break
            return connection
        words = last or LostError("it was never tried")
        raise StorageError(f"cannot reach {self.root}: {words}", hint=words.hint) from last


def lost_error(doing: str, where: str, lost: LostError) -> StorageError:
    """Return the error for what the lost connection has interrupted."""
    return StorageError(f"cannot {doing} {where}: {lost}", hint=lost.hint)


def broken(where: str) -> StorageError:
    """Return the error for an answer that does not fit its request."""
    return StorageError(f"cannot use {where}: its server gave an answer that does not fit")


def close_handle(connection: Connection, handle: int) -> None:
    """Close what is open by a handle; nothing if the connection is lost. Does not wait."""
    with suppress(LostError):
        connection.begin_unheard(lambda id_: Close(id_, handle))


def by_handle(kind: type[Held_], handle: int) -> Callable[[int], Held_]:
    """Return what makes a request with a handle and nothing else."""
    return lambda id_: kind(id_, handle)

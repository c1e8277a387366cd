"""The client's side of a store connection: many requests at once over one pair of pipes.

A thread reads the answers, another one shows the server every minute that this client is alive.
When the connection is lost, whatever waits for an answer gets a ``LostError``, and the connection
is of no more use: ``storage.py`` makes another. The server is not trusted: an answer to nothing, a
message that cannot be understood, or a second hello ends the connection.
"""

from collections.abc import Callable
from contextlib import suppress
from itertools import count
from queue import SimpleQueue
from threading import Event, Lock, Thread
from typing import Final, Protocol, TypeVar

from virtbackup_async.repository.storage.served.channel import Channel, SilenceError
from virtbackup_async.repository.storage.served.frames import FrameError
from virtbackup_async.repository.storage.served.messages import (
    ABILITIES,
    VERSION,
    Hello,
    Message,
    Ping,
    Reply,
    Request,
    ServedReply,
    decode_reply,
    is_last,
)
from virtbackup_async.version import __version__

PING_S: Final = 60.0
GREETING_S: Final = 120.0
SILENCE_S: Final = 600.0
"""A server answers a ping at once, even while its disk keeps all other requests waiting."""
R = TypeVar("R", bound=Request)


class LostError(Exception):
    """The connection is lost; the text says why, in one line.

    Attributes:
        hint: a sentence that says what to do.
        is_final: whether another attempt to connect fails as well.
    """

    def __init__(self, reason: str, *, hint: str | None = None, is_final: bool = False) -> None:
        super().__init__(reason)
        self.hint = hint
        self.is_final = is_final

    def again(self) -> "LostError":
        """Return an equal one, for another thread to raise."""
        return LostError(str(self), hint=self.hint, is_final=self.is_final)


class Server(Protocol):
    """The process at the other end of the pipes."""

    @property
    def channel(self) -> Channel: ...

    def end(self) -> LostError | None:
        """Close its input, wait for its end, and return why it ended, if that is known.

        It is killed if it does not end by itself. Another thread may be receiving, or sending.
        """


class Call:
    """A request that is under way."""

    def __init__(self, id_: int) -> None:
        self.id = id_
        self._replies: SimpleQueue[Reply | LostError] = SimpleQueue()

    def put(self, reply: Reply | LostError) -> None:
        """Add a part of the answer."""
        self._replies.put(reply)

    def next_reply(self) -> Reply:
        """Return the next part of the answer. Blocks.

        Raises:
            LostError: there is none any more.
        """
        reply = self._replies.get()
        if isinstance(reply, LostError):
            self._replies.put(reply)
            raise reply.again()
        return reply


class Connection:
    """A connection; any thread may use it. ``close`` it."""

    def __init__(self, server: Server, ping_s: float = PING_S) -> None:
        """Wait for the server's hello, and answer it. Blocks.

        Raises:
            LostError: no server answers, or one of no use.
        """
        self._server = server
        self._channel = server.channel
        self._numbers = count(1)
        self._calls: dict[int, Call] = {}
        self._unheard: set[int] = set()
        self._turn = Lock()
        self._lost: LostError | None = None
        self._is_over = Event()
        self._channel.silence_s = GREETING_S
        self._replies = self._channel.receive()
        try:
            self.hello = self._greet()
        except LostError as lost:
            self._lose(str(lost))
            self._channel.close_input()
            raise self._explained() from lost
        self._reader = Thread(target=self._read, name="store answers", daemon=True)
        self._reader.start()
        Thread(target=self._keep_alive, args=(ping_s,), name="store ping", daemon=True).start()

    @property
    def is_lost(self) -> bool:
        """Whether it is of no more use."""
        return self._lost is not None

    def begin(self, make: Callable[[int], R]) -> Call:
        """Send a request; its answer is in the result.

        Args:
            make: makes the request with that number.

        Raises:
            LostError: the connection is lost.
        """
        call = Call(next(self._numbers))
        with self._turn:
            if self._lost is not None:
                raise self._lost.again()
            self._calls[call.id] = call
        self.send(make(call.id))
        return call

    def send(self, message: Message) -> None:
        """Send a message that belongs to a request under way, or begins one.

        Raises:
            LostError: the connection is lost.
        """
        try:
            self._channel.send(message)
        except OSError as error:
            self._lose("the connection broke")
            raise self._explained() from error

    def begin_unheard(self, make: Callable[[int], R]) -> None:
        """Send a request whose answer nobody waits for."""
        call = Call(next(self._numbers))
        with self._turn:
            if self._lost is not None:
                raise self._lost.again()
            self._unheard.add(call.id)
        self.send(make(call.id))

    def abandon(self, call: Call) -> None:
        """Ignore what is still to come of an answer."""
        with self._turn:
            if self._calls.pop(call.id, None) is not None:
                self._unheard.add(call.id)

    def close(self) -> None:
        """Close it. Blocks until the server has ended."""
        self._lose("the connection was closed")

    def _greet(self) -> Hello:
        try:
            body = next(self._replies, None)
            hello = None if body is None else decode_reply(body)
        except SilenceError as error:
            raise LostError("the store server does not answer") from error
        except (FrameError, OSError) as error:
            raise LostError("what answers is no store server") from error
        if hello is None:
            raise LostError("the store server ended at once")
        if not isinstance(hello, Hello):
            raise LostError("what answers is no store server")
        self.send(Hello(VERSION, ABILITIES, __version__))
        self._channel.silence_s = SILENCE_S
        return hello

    def _read(self) -> None:
        reason = "the server closed the connection"
        try:
            for body in self._replies:
                self._hand_over(decode_reply(body))
        except FrameError as error:
            reason = f"the server does not keep to the protocol: {error}"
        except SilenceError:
            reason = "the server does not answer any more"
        except OSError as error:
            reason = f"the connection broke: {error.strerror}"
        self._lose(reason)
        self._channel.close_input()

    def _hand_over(self, reply: ServedReply) -> None:
        if not isinstance(reply, Reply):
            raise FrameError("another hello")
        with self._turn:
            if reply.id in self._unheard:
                if is_last(reply):
                    self._unheard.discard(reply.id)
                return
            call = self._calls.get(reply.id)
            if is_last(reply):
                self._calls.pop(reply.id, None)
        if call is None:
            raise FrameError("an answer to nothing")
        call.put(reply)

    def _keep_alive(self, ping_s: float) -> None:
        while not self._is_over.wait(ping_s):
            with suppress(LostError):
                self.begin_unheard(Ping)

    def _lose(self, reason: str) -> None:
        """Take the connection out of use, once; whoever waits is told."""
        with self._turn:
            if self._lost is not None:
                return
            self._lost = LostError(reason)
        self._is_over.set()
        # It tells more than the broken pipe does: who was refused, what is unknown.
        said = self._server.end()
        with self._turn:
            self._lost = said or self._lost
            calls = list(self._calls.values())
            self._calls.clear()
        for call in calls:
            call.put(self._lost)

    def _explained(self) -> LostError:
        with self._turn:
            return (self._lost or LostError("the connection is lost")).again()

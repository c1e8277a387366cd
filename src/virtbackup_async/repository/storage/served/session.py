"""The server's side of a store connection: carries out the requests of one client.

The client is not trusted. Whatever it sends, a session takes at most ``IN_FLIGHT`` messages, a few
files that are sent as a whole, ``MAX_OPEN`` open files and ``THREADS`` threads; when the client is
gone, or breaks the protocol, or was silent for ``SILENCE_S``, all that it had open is closed: no
hidden or unfinished file stays, no lease and no lock. Each client has a process of its own, so
nobody else notices.
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import BoundedSemaphore, Lock
from typing import Final

from virtbackup_async.errors import StorageError
from virtbackup_async.repository.storage.interface import Storage
from virtbackup_async.repository.storage.served.channel import Channel, SilenceError
from virtbackup_async.repository.storage.served.failures import failed
from virtbackup_async.repository.storage.served.frames import FrameError
from virtbackup_async.repository.storage.served.messages import (
    ABILITIES,
    MAX_WHOLE_BYTES,
    VERSION,
    Decision,
    Done,
    Held_,
    Hello,
    LookAtLease,
    Message,
    More,
    Overwrite,
    Ping,
    PutNew,
    Replace,
    Request,
    decode_request,
    text,
)
from virtbackup_async.repository.storage.served.opened import OpenThings
from virtbackup_async.repository.storage.served.verbs import Answer, carry_out
from virtbackup_async.version import __version__

IN_FLIGHT: Final = 32
THREADS: Final = 8
MAX_OPEN: Final = 512
SILENCE_S: Final = 300.0
"""A client sends something every minute; sshd may notice hours later that its host is gone."""
DECISION_S: Final = 30.0
_MAX_LOOKS: Final = 2
_NOT_DEAD: Final = False
_MAX_GATHERED_BYTES: Final = 2 * MAX_WHOLE_BYTES
_WITH_MORE: Final = (Replace, PutNew, Overwrite)


def serve(storage: Storage, channel: Channel, *, append_only: bool = False) -> None:
    """Serve a storage to one client, until that is gone. Blocks.

    Args:
        storage: refuses by itself what the client may not do.
        channel: of the client.
        append_only: what to tell the client about its role.

    Raises:
        StorageError: the client broke the protocol, or was silent for too long.
    """
    session = _Session(storage, channel, append_only=append_only)
    try:
        session.run()
    except FrameError as error:
        raise StorageError(f"the client does not speak the protocol: {error}") from error
    except SilenceError as error:
        raise StorageError(f"the client was silent for {channel.silence_s} s") from error
    except OSError:
        return  # it is gone
    finally:
        session.close()


class _Session:
    def __init__(self, storage: Storage, channel: Channel, *, append_only: bool) -> None:
        self._storage = storage
        self._channel = channel
        self._append_only = append_only
        self._room = BoundedSemaphore(IN_FLIGHT)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="verb")
        self._things = OpenThings(MAX_OPEN)
        self._lanes = _Lanes(self._threads.submit)
        self._gathered: dict[int, bytearray] = {}
        self._looks: dict[int, SimpleQueue[bool]] = {}
        self._turn = Lock()
        self._is_over = False

    def run(self) -> None:
        """Carry out requests until the client closes its end."""
        root = text(self._storage.where())
        self._send(Hello(VERSION, ABILITIES, __version__, root=root, append_only=self._append_only))
        is_greeted = False
        for body in self._channel.receive():
            message = decode_request(body)
            if isinstance(message, Hello) is is_greeted:
                raise FrameError("a client says hello once, and first")
            is_greeted = True
            if isinstance(message, Request):
                self._take(message)

    def close(self) -> None:
        """Close all that the client had open; nothing of it is under way afterwards."""
        with self._turn:
            self._is_over = True
            looks = list(self._looks.values())
        for decision in looks:
            decision.put(_NOT_DEAD)
        self._threads.shutdown(cancel_futures=True)
        self._things.close_all()

    def _take(self, request: Request) -> None:
        if isinstance(request, More):
            self._gather(request)
            return
        if isinstance(request, Ping):
            # At once: all threads may be waiting for a slow disk.
            self._send(Done(request.id))
            return
        if isinstance(request, Decision):
            with self._turn:
                decision = self._looks.get(request.id)
            if decision is not None:
                decision.put(request.is_dead)
            return
        self._room.acquire()
        handle = request.handle if isinstance(request, Held_) else None
        more = bytes(self._gathered.pop(request.id, b"")) if self._gathered else b""
        if more and not isinstance(request, _WITH_MORE):
            raise FrameError("data before a request that takes none")
        self._lanes.submit(handle, lambda: self._work(request, more))

    def _gather(self, more: More) -> None:
        gathered = self._gathered.setdefault(more.id, bytearray())
        gathered += more.data
        total = sum(map(len, self._gathered.values()))
        if total > _MAX_GATHERED_BYTES or len(gathered) > MAX_WHOLE_BYTES:
            raise FrameError("a file that is too long to be sent as a whole")
        if len(self._gathered) > IN_FLIGHT:
            raise FrameError("too many files that are sent as a whole")

    def _work(self, request: Request, more: bytes) -> None:
        try:
            if self._is_over:
                return
            with suppress(OSError):  # it is gone: ``run`` ends
                self._send(self._answer(request, more))
        finally:
            self._room.release()

    def _answer(self, request: Request, more: bytes) -> Message:
        try:
            decide = self._decide if isinstance(request, LookAtLease) else None
            return carry_out(request, Answer(self._storage, self._things, self._send, decide, more))
        except Exception as error:  # noqa: BLE001 -- one request never ends the others
            return failed(request.id, error)

    def _decide(self, look: Message, id_: int) -> bool:
        """Send what is seen of a lease, and return the client's decision; False if it has none."""
        decision: SimpleQueue[bool] = SimpleQueue()
        with self._turn:
            if self._is_over or id_ in self._looks or len(self._looks) >= _MAX_LOOKS:
                raise StorageError("too many leases are looked at")
            self._looks[id_] = decision
        try:
            self._send(look)
            return decision.get(timeout=DECISION_S)
        except Empty:
            return False
        finally:
            with self._turn:
                del self._looks[id_]

    def _send(self, message: Message) -> None:
        self._channel.send(message)


class _Lanes:
    """Runs jobs in threads; those with the same handle one after the other."""

    def __init__(self, submit: Callable[[Callable[[], None]], object]) -> None:
        self._submit = submit
        self._waiting: dict[int, deque[Callable[[], None]]] = {}
        self._turn = Lock()

    def submit(self, handle: int | None, job: Callable[[], None]) -> None:
        if handle is None:
            self._submit(job)
            return
        with self._turn:
            if handle in self._waiting:
                self._waiting[handle].append(job)
                return
            self._waiting[handle] = deque([job])
        self._submit(lambda: self._run(handle))

    def _run(self, handle: int) -> None:
        while True:
            with self._turn:
                waiting = self._waiting[handle]
                if not waiting:
                    del self._waiting[handle]
                    return
                job = waiting.popleft()
            job()

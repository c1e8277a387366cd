"""An HTTP proxy before an object store: loses, repeats, delays and cuts off answers, and lies.

It passes requests on as they are, signature included, one after the other in each connection. A
plan says for each request which fault it meets; without a plan, none does.
"""

import asyncio
import random
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import Enum
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import obstore.store


class Fault(Enum):
    """What happens to one request."""

    LOSE_REQUEST = "the connection ends before the request is passed on"
    LOSE_ANSWER = "it is passed on, and the connection ends in place of an answer"
    FAIL = "it is not passed on, and answered with 503"
    FAIL_AFTER = "it is passed on, and answered with 500"
    CONFLICT = "it is not passed on, and answered with 409"
    REPEAT = "it is passed on twice, and the second answer is given"
    LATE = "the connection ends, and it is passed on a moment later"
    STALL = "it is passed on, and no answer comes"
    CUT_OFF = "half of the answer comes, and the connection ends"
    SHORTEN = "half of the answer comes, and its length says that this is all"
    LIE = "it is not passed on, and answered with success"


class Answer(NamedTuple):
    """An answer of the proxy's own."""

    status: int
    code: str = ""
    body: str = ""


Plan = Callable[[str, str], "Fault | Answer | None"]
"""Says what happens to a request of a method, for a path."""

Judge = Callable[[str, str, Mapping[str, str]], "Answer | None"]

CONDITIONS = frozenset({"if-match", "if-none-match"})
LOSSES = (Fault.LOSE_REQUEST, Fault.LOSE_ANSWER, Fault.FAIL, Fault.FAIL_AFTER, Fault.CONFLICT,
          Fault.REPEAT, Fault.LATE, Fault.CUT_OFF, Fault.LIE)  # fmt: skip
_OWN = {
    Fault.FAIL: Answer(503, "SlowDown"),
    Fault.CONFLICT: Answer(409, "ConditionalRequestConflict"),
    Fault.LIE: Answer(200),
}
_READS = frozenset({"GET", "HEAD"})


class _Message(NamedTuple):
    first: str
    headers: dict[str, str]
    body: bytes

    def encoded(self, body: bytes | None = None, **more: str) -> bytes:
        headers = {**self.headers, **more}
        lines = [self.first, *(f"{key}: {value}" for key, value in headers.items()), "", ""]
        return "\r\n".join(lines).encode("latin-1") + (self.body if body is None else body)


class LossyProxy:
    """A running proxy.

    Attributes:
        endpoint: its URL.
        plan: says which fault comes next; may be replaced at any time.
        met: the faults so far, by method.
        ignored: headers of conditions that do not matter.
        refused: headers for which a request is answered with 501.
        judge: says what answers a request in place of the store, by its headers as well.
    """

    def __init__(self, endpoint: str) -> None:
        at = urlsplit(endpoint)
        self._upstream = (at.hostname, at.port)
        self.plan: Plan = lambda _method, _path: None
        self.met: defaultdict[str, list[Fault | Answer]] = defaultdict(list)
        self.endpoint = ""
        self.ignored: frozenset[str] = frozenset()
        self.refused: frozenset[str] = frozenset()
        self.judge: Judge = lambda _method, _path, _headers: None
        self.stop: Callable[[], object] = lambda: None
        self._late: set[asyncio.Task[None]] = set()

    async def serve(self, is_up: threading.Event) -> None:
        """Serve until ``stop`` is called."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        self.stop = lambda: loop.call_soon_threadsafe(stop.set)
        is_up.set()
        await stop.wait()
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.CancelledError):
            await self._serve_all(reader, writer)

    async def _serve_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await _read_message(reader)) is not None:
                answer = await self._answer(request)
                if answer is None:
                    break
                writer.write(answer[0])
                await writer.drain()
                if answer[1]:
                    break
        except (OSError, EOFError):
            pass  # the client or the server has gone
        finally:
            writer.close()

    async def _answer(self, request: _Message) -> tuple[bytes, bool] | None:
        """Return what to send, and whether the connection ends then; None to end it at once."""
        method, path, _ = request.first.split(" ", 2)
        fault = self.plan(method, path)
        fault = self.judge(method, path, request.headers) or fault
        if self.refused & request.headers.keys():
            fault = Answer(501, "NotImplemented")
        if fault is not None:
            self.met[method].append(fault)
        if isinstance(fault, Fault) and fault in _OWN:
            fault = _OWN[fault]
        if isinstance(fault, Answer):
            return _own(fault, method), False
        if fault is Fault.LOSE_REQUEST:
            return None
        if fault is Fault.LATE:
            task = asyncio.create_task(self._pass_later(request))
            self._late.add(task)
            task.add_done_callback(self._late.discard)
            return None
        if fault is Fault.REPEAT:
            await self._pass_on(request)
        answer = await self._pass_on(request)
        if self.ignored & request.headers.keys() and " 412 " in answer.first:
            await asyncio.to_thread(self._store_anyway, path, request.body)
            answer = _Message("HTTP/1.1 200 OK", {"etag": '"new"', "content-length": "0"}, b"")
        return await self._spoilt(answer, fault, method)

    def _store_anyway(self, path: str, body: bytes) -> None:
        """Store an object as a server does that ignores conditions; the headers are signed."""
        bucket, _, name = unquote(path.lstrip("/")).partition("/")
        host, port = self._upstream
        config = {"endpoint": f"http://{host}:{port}"}
        store = obstore.store.S3Store(bucket, config=config, client_options={"allow_http": True})  # type: ignore[arg-type]
        obstore.put(store, name, body)

    async def _spoilt(
        self, answer: _Message, fault: Fault | None, method: str
    ) -> tuple[bytes, bool] | None:
        """Do to an answer what the fault says."""
        half = answer.body[: len(answer.body) // 2]
        match fault:
            case Fault.LOSE_ANSWER:
                return None
            case Fault.FAIL_AFTER:
                return _own(Answer(500, "InternalError"), method), False
            case Fault.STALL:
                await asyncio.sleep(3600)
            case Fault.CUT_OFF if answer.body:
                return answer.encoded(half), True
            case Fault.SHORTEN if answer.body:
                return answer.encoded(half, **{"content-length": str(len(half))}), False
            case _:
                pass
        return answer.encoded(), False

    async def _pass_later(self, request: _Message) -> None:
        await asyncio.sleep(0.02)
        with suppress(OSError, asyncio.IncompleteReadError, EOFError):
            await self._pass_on(request)

    async def _pass_on(self, request: _Message) -> _Message:
        reader, writer = await asyncio.open_connection(*self._upstream)
        try:
            writer.write(request.encoded())
            await writer.drain()
            method = request.first.partition(" ")[0]
            answer = await _read_message(reader, has_body=method != "HEAD")
            assert answer is not None
            return answer
        finally:
            writer.close()


async def _read_message(reader: asyncio.StreamReader, *, has_body: bool = True) -> _Message | None:
    head = b""
    with suppress(asyncio.IncompleteReadError):
        head = await reader.readuntil(b"\r\n\r\n")
    if not head:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {
        key.lower(): value.strip()
        for key, _, value in (line.partition(":") for line in lines if line)
    }
    if first.startswith("HTTP/1.1 100"):
        return await _read_message(reader, has_body=has_body)
    body = b""
    if has_body and headers.get("transfer-encoding") == "chunked":
        while (length := int(await reader.readline(), 16)) > 0:
            body += await reader.readexactly(length)
            await reader.readline()
        await reader.readline()
        del headers["transfer-encoding"]
        headers["content-length"] = str(len(body))
    elif has_body:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return _Message(first, headers, body)


def _own(answer: Answer, method: str) -> bytes:
    text = f"<Error><Code>{answer.code}</Code></Error>" if answer.code else answer.body
    body = b"" if method == "HEAD" else text.encode()
    lines = [f"HTTP/1.1 {answer.status} x", f"content-length: {len(body)}", 'etag: "lie"',
             "last-modified: Mon, 30 Nov 2026 00:00:00 GMT", "", ""]  # fmt: skip
    return "\r\n".join(lines).encode() + body


@contextmanager
def lossy_proxy(endpoint: str) -> Iterator[LossyProxy]:
    """Run a proxy before a server, in a thread of its own."""
    proxy = LossyProxy(endpoint)
    is_up = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(proxy.serve(is_up)), name="lossy proxy")
    thread.start()
    is_up.wait()
    try:
        yield proxy
    finally:
        proxy.stop()
        thread.join()


def at_random(seed: int | str, share: float, faults: tuple[Fault, ...] = LOSSES) -> Plan:
    """A plan under which a share of all requests meets some fault, never three times in a row.

    Nothing lies about reads: no storage could notice that.
    """
    numbers = random.Random(seed)
    in_a_row: defaultdict[tuple[str, str], int] = defaultdict(int)

    def plan(method: str, path: str) -> Fault | None:
        key = (method, path)
        if numbers.random() >= share or in_a_row[key] >= 2:
            in_a_row[key] = 0
            return None
        in_a_row[key] += 1
        fault = numbers.choice(faults)
        return Fault.FAIL if method in _READS and fault is Fault.LIE else fault

    return plan

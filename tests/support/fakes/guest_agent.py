"""A guest agent that fails in a way of the test's choice; libvirt talks to it over a real socket.

Source: QEMU's qga/qapi-schema.json, and libvirt's qemu_agent.c, which sends one JSON object a line
and wants one back. The guest has to run an agent of its own, which opens the port: only then does
libvirt connect. Its socket is this one's (``agent_socket`` of the lab's domains).
"""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

FREEZE, THAW, TIME = "guest-fsfreeze-freeze", "guest-fsfreeze-thaw", "guest-get-time"
SYNC = {"guest-sync", "guest-sync-delimited"}

Reply = bytes | None
Misbehave = Callable[["FakeAgent", str, bytes], Reply]
"""By command and its good answer: what is sent; None for silence."""


class FakeAgent:
    """Listens at a path; a good agent until it is told how to be a bad one."""

    def __init__(self, path: Path) -> None:
        self.commands: list[str] = []
        self.frozen = False
        self.misbehave: Misbehave = good
        self.hang_up: Callable[[], None] = lambda: None
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def become(self, misbehave: Misbehave) -> None:
        """Behave so from now on, with nothing frozen and nothing heard."""
        self.commands.clear()
        self.frozen = False
        self.misbehave = misbehave

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _peer = self._listener.accept()
                threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection, connection.makefile("rb") as lines:
            for line in lines:
                request = _parsed(line)
                if request is None:
                    continue
                self.hang_up = lambda: connection.shutdown(socket.SHUT_RDWR)
                reply = self.misbehave(self, request["execute"], self._answer(request))
                if reply is not None:
                    connection.sendall(reply)

    def _answer(self, request: dict[str, Any]) -> bytes:
        command = request["execute"]
        if command in SYNC:
            return returned(request["arguments"]["id"])
        self.commands.append(command)
        if command in {FREEZE, THAW}:
            self.frozen = command == FREEZE
            return returned(1)
        return returned(time.time_ns() if command == TIME else {})


def _parsed(line: bytes) -> dict[str, Any] | None:
    with suppress(ValueError):
        request = json.loads(line.lstrip(b"\xff"))
        return request if isinstance(request, dict) else None
    return None


def returned(value: Any) -> bytes:
    return json.dumps({"return": value}).encode() + b"\n"


def refused(text: str) -> bytes:
    error = {"class": "GenericError", "desc": text}
    return json.dumps({"error": error}).encode() + b"\n"


def good(_agent: FakeAgent, _command: str, answer: bytes) -> Reply:
    return answer


def instead(reply: Reply, *commands: str) -> Misbehave:
    """Send this in place of the answers to these commands."""

    def misbehave(_agent: FakeAgent, command: str, answer: bytes) -> Reply:
        return reply if command in commands else answer

    return misbehave


def hanging_up(*commands: str) -> Misbehave:
    def misbehave(agent: FakeAgent, command: str, answer: bytes) -> Reply:
        if command in commands:
            agent.hang_up()
            return None
        return answer

    return misbehave


def always(reply: Reply) -> Misbehave:
    return lambda _agent, _command, _answer: reply


def flood(mib: int) -> bytes:
    return b'{"return": "' + b"x" * (mib << 20) + b'"}\n'


@contextmanager
def fake_agent(path: Path) -> Iterator[FakeAgent]:
    agent = FakeAgent(path)
    try:
        yield agent
    finally:
        agent.close()

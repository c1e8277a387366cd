"""The bytes that a client sends, kept until they are taken; the client waits if there are many."""

import asyncio
from typing import Final

import anyio

from virtbackup_async.errors import NbdConnectionError, NbdError, NbdProtocolError

MAX_KEPT_BYTES: Final = 64 * 1024
"""So many bytes may wait here; then nothing more is received until some are taken."""


class ClientInbox:
    """Collects a client's bytes, and returns them in the requested lengths.

    Invariant: it never keeps more than the requested bytes, ``MAX_KEPT_BYTES``, and what the
    transport delivers at once.
    """

    def __init__(self) -> None:
        self._kept = bytearray()
        self._wanted = 0
        self._arrived = anyio.Event()
        self._failure: NbdError | None = None
        self._transport: asyncio.Transport | None = None
        self._is_paused = False

    def use(self, transport: asyncio.Transport) -> None:
        """Receive from a transport: the first one, or the encrypted one over it."""
        self._transport = transport
        self._is_paused = False

    def add(self, data: bytes) -> None:
        """Keep bytes that arrived."""
        self._kept += data
        if len(self._kept) >= max(self._wanted, MAX_KEPT_BYTES) and not self._is_paused:
            self._is_paused = True
            if self._transport is not None:
                self._transport.pause_reading()
        self._arrived.set()

    def fail(self, failure: NbdError) -> None:
        """Wake the waiting task with an error: nothing more will come."""
        self._failure = self._failure or failure
        self._arrived.set()

    async def take(self, length: int) -> bytes:
        """Wait for ``length`` bytes, and return them.

        Raises:
            NbdConnectionError: the client is gone.
        """
        self._wanted = length
        while len(self._kept) < length:
            if self._failure is not None:
                raise self._failure
            self._resume()
            self._arrived = anyio.Event()
            await self._arrived.wait()
        taken = bytes(memoryview(self._kept)[:length])
        del self._kept[:length]
        return taken

    async def discard(self, length: int) -> None:
        """Wait for ``length`` bytes, and forget them."""
        while length:
            now = min(length, MAX_KEPT_BYTES)
            await self.take(now)
            length -= now

    def expect_empty(self) -> None:
        """Check that the client has sent nothing ahead.

        Bytes that came unencrypted must not count as encrypted ones.

        Raises:
            NbdProtocolError: it has.
        """
        if self._kept:
            raise NbdProtocolError("the client sent something ahead of TLS")

    def _resume(self) -> None:
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()


def gone(exc: Exception | None) -> NbdConnectionError:
    """Return the error for a client that hung up, or whose connection broke."""
    return NbdConnectionError(f"the connection broke: {exc}" if exc else "the client hung up")

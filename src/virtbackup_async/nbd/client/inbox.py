"""The bytes that a server sends during the negotiation, kept until they are taken."""

from typing import Final

import anyio

from virtbackup_async.errors import NbdError, NbdProtocolError

# More than the longest expected reply.
_MAX_BYTES: Final = 256 * 1024
_VIEW_BYTES: Final = 16 * 1024


class Inbox:
    """Collects bytes as the transport receives them, and returns them in the requested lengths."""

    def __init__(self) -> None:
        self._view = memoryview(bytearray(_VIEW_BYTES))
        self._kept = bytearray()
        self._arrived = anyio.Event()
        self._failure: NbdError | None = None

    def buffer(self) -> memoryview:
        """Return the buffer to receive into; never empty."""
        return self._view

    def filled(self, count: int) -> None:
        """Record that ``count`` bytes were received into the buffer.

        Raises:
            NbdProtocolError: the server sends more than any reply has.
        """
        self._kept += self._view[:count]
        if len(self._kept) > _MAX_BYTES:
            raise NbdProtocolError("the server sends more than it was asked for")
        self._arrived.set()

    def fail(self, failure: NbdError) -> None:
        """Wake the waiting task with an error: nothing more will come."""
        self._failure = failure
        self._arrived.set()

    async def take(self, length: int) -> bytes:
        """Wait for ``length`` bytes, and return them.

        Raises:
            NbdError: the connection broke.
        """
        while len(self._kept) < length:
            if self._failure is not None:
                raise self._failure
            self._arrived = anyio.Event()
            await self._arrived.wait()
        taken = bytes(self._kept[:length])
        del self._kept[:length]
        return taken

    def expect_empty(self) -> None:
        """Check that the server has sent nothing unasked.

        Bytes that came unencrypted must not count as encrypted ones.

        Raises:
            NbdProtocolError: it has.
        """
        if self._kept:
            raise NbdProtocolError("the server sent something unasked")

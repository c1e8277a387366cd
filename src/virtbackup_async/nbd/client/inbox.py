"""What a server says during the negotiation, kept until it is asked for."""

from typing import Final

import anyio

from virtbackup_async.errors import NbdError, NbdProtocolError

# More than the longest answer that is ever waited for.
_MAX_BYTES: Final = 256 * 1024
_VIEW_BYTES: Final = 16 * 1024


class Inbox:
    """Takes bytes as the transport brings them, and gives them out in the lengths asked for."""

    def __init__(self) -> None:
        self._view = memoryview(bytearray(_VIEW_BYTES))
        self._kept = bytearray()
        self._arrived = anyio.Event()
        self._failure: NbdError | None = None

    def buffer(self) -> memoryview:
        """Return where to receive; never empty."""
        return self._view

    def filled(self, count: int) -> None:
        """Take note that so many bytes were received into the buffer.

        Raises:
            NbdProtocolError: the server does not stop talking.
        """
        self._kept += self._view[:count]
        if len(self._kept) > _MAX_BYTES:
            raise NbdProtocolError("the server talks without being asked")
        self._arrived.set()

    def fail(self, failure: NbdError) -> None:
        """Let everybody who waits know that nothing more will come."""
        self._failure = failure
        self._arrived.set()

    async def take(self, length: int) -> bytes:
        """Return exactly so many bytes, as soon as they are there.

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
        """Check that nothing was said before its time.

        What came in the clear must not be taken for something that came encrypted.

        Raises:
            NbdProtocolError: something was.
        """
        if self._kept:
            raise NbdProtocolError("the server spoke before its turn")

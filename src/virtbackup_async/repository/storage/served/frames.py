"""The frames of a store connection: pure, no I/O.

::

    4 bytes   length of the rest, big-endian, 1 to MAX_FRAME_BYTES
    ...       one message (``messages.py``)

The first frame of each side is its ``Hello``. Whoever sends anything else is not a store server, or
not a client of one: nothing more is read from it.
"""

from collections.abc import Iterator
from typing import Final

PIECE_BYTES: Final = 1 << 20
"""The most bytes of a file that are in one message."""
MAX_FRAME_BYTES: Final = PIECE_BYTES + 64 * 1024
_LENGTH_BYTES: Final = 4


class FrameError(ValueError):
    """The other side does not speak this protocol; nothing after that can be understood."""


def frame(body: bytes) -> bytes:
    """Return the frame of a message."""
    if not 0 < len(body) <= MAX_FRAME_BYTES:
        raise FrameError(f"a message of {len(body)} bytes")
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


class Frames:
    """Cuts the received bytes into messages; holds one incomplete frame at most."""

    def __init__(self) -> None:
        self._rest = bytearray()

    @property
    def is_between(self) -> bool:
        """Whether the bytes so far end with the end of a frame."""
        return not self._rest

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the messages that are complete with these bytes.

        Raises:
            FrameError: a frame is empty or too long.
        """
        self._rest += data
        begin = 0
        try:
            while len(self._rest) - begin >= _LENGTH_BYTES:
                length = int.from_bytes(self._rest[begin : begin + _LENGTH_BYTES], "big")
                if not 0 < length <= MAX_FRAME_BYTES:
                    raise FrameError(f"a frame of {length} bytes")
                end = begin + _LENGTH_BYTES + length
                if len(self._rest) < end:
                    return
                with memoryview(self._rest) as view:
                    body = bytes(view[begin + _LENGTH_BYTES : end])
                begin = end
                yield body
        finally:
            del self._rest[:begin]

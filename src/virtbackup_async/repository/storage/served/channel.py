"""The two pipes of a store connection: bytes in, frames out. Blocks."""

import os
import select
from collections.abc import Iterator
from threading import Lock
from typing import Final

from virtbackup_async.files.refusals import close
from virtbackup_async.repository.storage.served.frames import FrameError, Frames
from virtbackup_async.repository.storage.served.messages import Message, encode

_READ_BYTES: Final = 256 * 1024


class SilenceError(Exception):
    """The other side has sent nothing for too long."""


class Channel:
    """A pair of descriptors; one thread receives, any thread sends.

    Attributes:
        silence_s: how long the other side may send nothing; None: for ever.
    """

    def __init__(self, input_fd: int, output_fd: int, silence_s: float | None = None) -> None:
        self.silence_s = silence_s
        self._input = input_fd
        self._output = output_fd
        self._turn = Lock()

    def receive(self) -> Iterator[bytes]:
        """Yield the messages of the other side until it closes its end.

        Raises:
            FrameError: it does not speak the protocol, or ends within a frame.
            SilenceError: it was silent for too long.
            OSError: the pipe is broken.
        """
        frames = Frames()
        poll = select.poll()
        poll.register(self._input, select.POLLIN)
        while True:
            if not poll.poll(None if self.silence_s is None else self.silence_s * 1000):
                raise SilenceError
            data = os.read(self._input, _READ_BYTES)
            if not data:
                break
            yield from frames.feed(data)
        if not frames.is_between:
            raise FrameError("the connection ended within a message")

    def send(self, message: Message) -> None:
        """Send a message.

        Raises:
            OSError: the pipe is broken.
        """
        with self._turn, memoryview(encode(message)) as rest:
            sent = 0
            while sent < len(rest):
                sent += os.write(self._output, rest[sent:])

    def close_output(self, wait_s: float) -> bool:
        """Close the end for sending; False if a thread that is sending did not end in time."""
        if not self._turn.acquire(timeout=wait_s):
            return False
        try:
            output, self._output = self._output, -1
            if output >= 0:
                close(output)
        finally:
            self._turn.release()
        return True

    def close_input(self) -> None:
        """Close the end for receiving; only the thread that receives calls it."""
        input_, self._input = self._input, -1
        if input_ >= 0:
            close(input_)

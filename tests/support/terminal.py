"""A program on a terminal of its own, which is answered when it asks."""

import os
import re
import select
import signal
import subprocess
import termios
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

_DEADLINE_S = 60
_COLOURS = re.compile(rb"\x1b\[[0-9;]*m")


class Terminal:
    """The other end of the terminal; ``said`` is all that was written to it."""

    def __init__(self, fd: int, process: subprocess.Popen[bytes]) -> None:
        self.said = ""
        self._fd = fd
        self._process = process
        self._seen = 0

    def answer(self, question: str, text: str) -> None:
        """Wait for a question that was not answered yet, and type an answer with Return."""
        self.wait_for(question)
        self.type(f"{text}\n")

    def type(self, text: str) -> None:
        """Type, control characters too."""
        os.write(self._fd, text.encode())

    def wait_for(self, text: str) -> None:
        """Read until a text has come that was not waited for yet."""
        while text not in self.said[self._seen :]:
            if not self._read():
                message = f"no {text!r} in:\n{self.said}"
                raise AssertionError(message)
        self._seen = self.said.index(text, self._seen) + len(text)

    def end(self) -> int:
        """Read to the end, and return the exit code."""
        while self._read():
            pass
        return self._process.wait(_DEADLINE_S)

    def interrupt(self) -> None:
        """Do as a Ctrl-C would."""
        self._process.send_signal(signal.SIGINT)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._fd], [], [], _DEADLINE_S)
        try:
            data = os.read(self._fd, 65536) if ready else b""
        except OSError:  # nobody has the other end any more
            data = b""
        self.said += _COLOURS.sub(b"", data).decode(errors="replace").replace("\r\n", "\n")
        return bool(data)


@contextmanager
def on_terminal(argv: Sequence[object], environment: Mapping[str, str] = {}) -> Iterator[Terminal]:
    """Run a program on a terminal of 120 columns; it is killed if the block ends before it."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (40, 120))
    process = subprocess.Popen(
        list(map(str, argv)),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", **environment},
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield Terminal(ours, process)
    finally:
        process.kill()
        process.wait()
        os.close(ours)

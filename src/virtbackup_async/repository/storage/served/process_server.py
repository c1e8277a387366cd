"""A store server that is a process: ``ssh``, or the server itself."""

from collections.abc import Callable, Sequence
from typing import Final

from virtbackup_async.processes import Ended, PipedProgram
from virtbackup_async.repository.storage.served.channel import Channel
from virtbackup_async.repository.storage.served.connection import LostError

_SEND_S: Final = 2.0
_END_S: Final = 10.0


class ProcessServer:
    """A ``Server`` of ``connection.py``: a program that speaks the protocol on its pipes."""

    def __init__(self, argv: Sequence[str], explain: Callable[[Ended], LostError | None]) -> None:
        """Start the program. Blocks for a moment.

        Args:
            argv: the program and its arguments.
            explain: says why it ended.

        Raises:
            OSError: it cannot be started.
        """
        self._explain = explain
        self._program = PipedProgram(argv)
        self.channel = Channel(self._program.stdout, self._program.stdin)
        self.pid = self._program.pid

    def end(self) -> LostError | None:
        if not self.channel.close_output(_SEND_S):
            self._program.kill()
            self.channel.close_output(_END_S)
        return self._explain(self._program.wait(_END_S))

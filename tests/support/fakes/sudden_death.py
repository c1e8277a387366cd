"""A process that is killed (SIGKILL) right before one of its file operations, whichever it is.

The code under test knows of nothing: the functions of ``os`` that change files are wrapped in a
forked child, which counts their calls and ends itself at the one that was asked for.
"""

import os
import signal
from collections.abc import Callable, Iterator

_CHANGING = (
    "open", "write", "pwrite", "fsync", "fdatasync", "rename", "replace", "link", "unlink", "mkdir",
)  # fmt: skip
_FAILED = 3


def killed_everywhere(work: Callable[[], None]) -> Iterator[int]:
    """Run ``work`` in a child that dies before its first file operation, its second, and so on.

    Gives the number of each that it died at, and ends when it lived to the end.
    """
    number = 0
    while killed_before(number, work):
        yield number
        number += 1


def killed_before(number: int, work: Callable[[], None]) -> bool:
    """Run ``work`` in a child that dies before that file operation; False if it has fewer."""
    pid = os.fork()
    if pid == 0:
        status = _FAILED
        try:
            die_before(number)
            work()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    assert status in {0, signal.SIGKILL}, "the child failed before it was killed"
    return status != 0


def die_before(number: int) -> Callable[[], int]:
    """Let this process die right before its file operation of that number.

    Returns:
        What returns how many there were so far.
    """
    left = number
    opens = os.open

    def before(call: Callable) -> Callable:
        def wrapped(*args: object, **options: object) -> object:
            nonlocal left
            if call is opens and not args[1] & os.O_CREAT:  # type: ignore[operator]
                return call(*args, **options)
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return call(*args, **options)

        return wrapped

    for name in _CHANGING:
        setattr(os, name, before(getattr(os, name)))
    return lambda: number - left

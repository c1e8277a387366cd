"""Prints errors on stderr, whatever state stdout and stderr are in."""

import contextlib
import os
import sys
import traceback

from virtbackup_async.reporting.text import printable


def say(message: str) -> None:
    """Write ``virtbackup: <message>.`` to stderr."""
    end = "" if message.endswith((".", "?")) else "."
    _write(f"virtbackup: {printable(message)}{end}\n")


def say_traceback(error: BaseException) -> None:
    """Write the traceback of an error, with its causes, to stderr."""
    lines = "".join(traceback.format_exception(error)).splitlines()
    _write("".join(f"{printable(line)}\n" for line in lines))


def _write(text: str) -> None:
    # If stderr is closed, there is no other place for an error.
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(text)
        sys.stderr.flush()


def settle_stdout() -> None:
    """Flush stdout; keep the interpreter from complaining if its reader has gone (``| head``)."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

"""The last line: what went wrong, on stderr, whatever state stdout and stderr are in."""

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
    """Write where an error came from, and what caused it, to stderr."""
    lines = "".join(traceback.format_exception(error)).splitlines()
    _write("".join(f"{printable(line)}\n" for line in lines))


def _write(text: str) -> None:
    # A stderr that is gone leaves nowhere to say so.
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(text)
        sys.stderr.flush()


def settle_stdout() -> None:
    """Flush stdout; if its reader has gone (``| head``), let the interpreter not complain of it."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

"""The last line: what went wrong, on stderr, whatever state stdout and stderr are in."""

import contextlib
import os
import sys

from virtbackup_async.cli.render.text import printable


def say(message: str, *, one_line: bool = True) -> None:
    """Write ``virtbackup: <message>.`` to stderr; nothing if stderr is gone."""
    lines = [message] if one_line else message.splitlines()
    end = "" if message.endswith((".", "\n")) else "."
    with contextlib.suppress(OSError, ValueError):
        for line in lines:
            sys.stderr.write(f"virtbackup: {printable(line)}{end if one_line else ''}\n")
        sys.stderr.flush()


def settle_stdout() -> None:
    """Flush stdout; if its reader has gone (``| head``), let the interpreter not complain of it."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

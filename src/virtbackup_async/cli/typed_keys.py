"""Keys that are typed, or come from a file or from standard input; never from the arguments.

Other users see the arguments of a process.
"""

import sys
from functools import cache
from pathlib import Path

import click

from virtbackup_async.errors import ConfigError

_MAX_CHARACTERS = 4096


def typed(what: str, *, twice: bool = False) -> str:
    """Return what is typed on the terminal without showing it, or the next line of stdin."""
    if not sys.stdin.isatty():
        line = sys.stdin.readline()
        if not line:
            raise ConfigError(f"no {what.lower()} on standard input")
        return line.rstrip("\n")
    try:
        return str(click.prompt(what, hide_input=True, confirmation_prompt=twice, err=True))
    except click.Abort:
        raise ConfigError(f"no {what.lower()}, so nothing was written") from None


@cache
def held_recovery_key(path: Path | None) -> str:
    """Return the name under which this process holds the recovery key; it is asked for once.

    Args:
        path: a file with the key on its first line that is no note; None to ask for it.

    Raises:
        ConfigError: there is none, or it is mistyped.
    """
    from virtbackup_async.repository import hold_key, key_of_paper  # noqa: PLC0415 -- it takes long

    text = typed("Recovery key") if path is None else _in_file(path)
    return hold_key(key_of_paper(text))


def _in_file(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            lines = file.read(_MAX_CHARACTERS).splitlines()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    keys = [line for line in lines if line.strip() and not line.startswith("#")]
    if len(keys) != 1:
        raise ConfigError(f"{path} has no recovery key, or other lines beside it")
    return keys[0]

"""One check for each kind of value; ``sections`` says which key has which.

A check takes what YAML gave, never null, and returns the value to work with.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeGuard

from virtbackup_async.model.packager_rules import PACKAGER_TYPES

Check = Callable[[Any], Any]

MAX_COUNT: Final = 1_000_000


class WrongValueError(ValueError):
    """A value is not what its key needs; the message is what was expected."""


def text(value: object) -> str:
    """Return text, which is not empty."""
    if not isinstance(value, str) or not value:
        raise WrongValueError("text, in quotes if it looks like a number")
    return value


def optional_text(value: object) -> str | None:
    """Return text; None for an empty one."""
    return None if value == "" else text(value)


def flag(value: object) -> bool:
    """Return a truth value."""
    if not isinstance(value, bool):
        raise WrongValueError("true or false, without quotes")
    return value


def count(minimum: int) -> Check:
    """Return the check for a whole number from ``minimum`` on."""

    def check(value: object) -> int:
        if not _is_whole(value) or not minimum <= value <= MAX_COUNT:
            raise WrongValueError(f"a whole number from {minimum} on, without quotes")
        return value

    return check


def keep(value: object) -> int | None:
    """Return how many backups to keep; None for ``"*"``, which means all."""
    if value == "*" or (isinstance(value, str) and value.lower() == "none"):
        return None
    if not _is_whole(value) or not 0 <= value <= MAX_COUNT:
        raise WrongValueError('a whole number without quotes, or "*" to keep all')
    return value


def directory(value: object) -> Path:
    """Return a directory's path, whether it exists or not."""
    if "\0" in text(value):
        raise WrongValueError("the path of a directory")
    return Path(text(value))


def file(value: object) -> Path:
    """Return the absolute path of a file, whether it exists or not."""
    path = directory(value)
    if not path.is_absolute():
        raise WrongValueError("the path of a file, from the root on")
    return path


def command(value: object) -> tuple[str, ...]:
    """Return a program and its arguments; text is a line for the shell."""
    if isinstance(value, list):
        argv = [*value]
        if argv and all(isinstance(word, str) and "\0" not in word for word in argv) and argv[0]:
            return tuple(argv)
    elif isinstance(value, str) and value.strip() and "\0" not in value:
        return ("/bin/sh", "-c", value)
    raise WrongValueError("a command as text, or as a list of a program and its arguments")


def one_of(*words: str) -> Check:
    """Return the check for one of these words."""

    def check(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise WrongValueError(f"one of {', '.join(words)}")
        return value

    return check


def packager_type(value: object) -> str:
    """Return the name of a packager."""
    found: str = one_of(*PACKAGER_TYPES)(value)
    return found


def mapping(value: object) -> dict[str, Any]:
    """Return a mapping; its keys are looked at later."""
    if not isinstance(value, dict):
        raise WrongValueError("a mapping")
    return value


def texts(value: object) -> tuple[str, ...]:
    """Return a list of texts, each once."""
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise WrongValueError("a list of texts")
    return tuple(dict.fromkeys(value))


def items(value: object) -> list[Any]:
    """Return a list; its items are looked at later."""
    if not isinstance(value, list):
        raise WrongValueError("a list")
    return value


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)

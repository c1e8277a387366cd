"""One check for each kind of value; ``sections`` says which key has which.

A check takes what YAML gave, never null, and returns the value to work with. It carries the JSON
Schema of what it takes, for ``json_schema``; a test holds the two against each other.
"""

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeGuard

from msgspec import Struct

from virtbackup_async.model.amounts import AGE_PATTERN, age_of
from virtbackup_async.model.packager import PACKAGER_TYPES
from virtbackup_async.model.pull import Method
from virtbackup_async.model.read_share import SHARE_PATTERN, read_share_of

MAX_COUNT: Final = 1_000_000
_ALL: Final = 100
_RATE: Final = r"^([0-9]{1,15}(?:\.[0-9]{1,3})?)\s*(?:([KMGT])(i?B)?|B)?(?:/s)?$"
_NO_NUL: Final = r"^[^\x00]+$"
_PATH: Final = r"^[^\x00~$][^\x00]*$"
_TEXT: Final = {"type": "string", "minLength": 1}
_COMMAND: Final = {
    "anyOf": [
        {"type": "string", "pattern": r"^[^\x00]*[^\x00\s][^\x00]*$"},
        {
            "type": "array",
            "minItems": 1,
            "prefixItems": [{"type": "string", "pattern": _NO_NUL}],
            "items": {"type": "string", "pattern": r"^[^\x00]*$"},
        },
    ]
}


class Check(Struct, frozen=True):
    """The allowed values of a key: a function that checks one, and the same as JSON Schema."""

    accept: Callable[[object], Any]
    schema: Mapping[str, Any]

    def __call__(self, value: object) -> Any:  # noqa: ANN401 -- each kind of value has its own
        return self.accept(value)


def _whole(minimum: int) -> Mapping[str, Any]:
    return {"type": "integer", "minimum": minimum, "maximum": MAX_COUNT}


def _takes(schema: Mapping[str, Any]) -> Callable[[Callable[[object], Any]], Check]:
    """Make a check of the function below."""
    return lambda accept: Check(accept, schema)


class WrongValueError(ValueError):
    """A value is wrong for its key; the message says what was expected."""

    def about(self, value: object) -> str:
        """Return one line on the value, and what was expected."""
        return f"found {value!r:.60}, expected {self}"


class SecretValueError(WrongValueError):
    """The same, if no message may repeat the value; the message is complete."""

    def about(self, value: object) -> str:
        del value
        return str(self)


@_takes(_TEXT)
def text(value: object) -> str:
    """Return a text that is not empty."""
    if not isinstance(value, str) or not value:
        raise WrongValueError("text, in quotes if it looks like a number")
    return value


@_takes({"type": "string"})
def optional_text(value: object) -> str | None:
    """Return text; None for an empty one."""
    return None if value == "" else str(text(value))


@_takes({"type": "boolean"})
def flag(value: object) -> bool:
    """Return a truth value."""
    if not isinstance(value, bool):
        raise WrongValueError("true or false, without quotes")
    return value


def count(minimum: int) -> Check:
    """Return the check for an integer of at least ``minimum``."""

    def check(value: object) -> int:
        if not _is_whole(value) or not minimum <= value <= MAX_COUNT:
            raise WrongValueError(f"a whole number from {minimum} on, without quotes")
        return value

    return Check(check, _whole(minimum))


@_takes({"anyOf": [_whole(0), {"type": "string", "pattern": r"^(\*|[Nn][Oo][Nn][Ee])$"}]})
def keep(value: object) -> int | None:
    """Return how many backups to keep; None for ``"*"``, which means all."""
    if value == "*" or (isinstance(value, str) and value.lower() == "none"):
        return None
    if not _is_whole(value) or not 0 <= value <= MAX_COUNT:
        raise WrongValueError('a whole number without quotes, or "*" to keep all')
    return value


@_takes({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": _RATE}]})
def rate(value: object) -> int:
    """Return bytes a second, such as ``50MiB``, ``200 MB/s`` or ``1G``; units as rsync has them."""
    if isinstance(value, str) and (found := re.match(_RATE, value)):
        number, prefix, suffix = found.groups()
        unit = (1000 if suffix == "B" else 1024) ** " KMGT".index(prefix or " ")
        value = int(float(number) * unit)
    if not _is_whole(value) or value < 1:
        raise WrongValueError("bytes a second, such as 50MiB, 200MB/s or 1G")
    return value


@_takes({"type": "string", "pattern": SHARE_PATTERN})
def read_share(value: object) -> str:
    """Return how much of the data is read, as it was written."""
    if not isinstance(value, str) or read_share_of(value) is None:
        raise WrongValueError("a share such as 2%, an amount such as 10GiB, or all")
    return value


@_takes({"type": "string", "pattern": rf"^{AGE_PATTERN}$"})
def age(value: object) -> timedelta:
    """Return a length of time, such as ``30d``."""
    length = age_of(value) if isinstance(value, str) else None
    if not length:
        raise WrongValueError("a length of time, such as 30d or 12w")
    return length


@_takes({"type": "number", "minimum": 0, "maximum": 100})
def percent(value: object) -> float:
    """Return a share of 100."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _ALL:
        raise WrongValueError("a number from 0 to 100, without quotes")
    return float(value)


@_takes({"type": "string", "pattern": _PATH})
def directory(value: object) -> Path:
    """Return a directory's path, whether it exists or not."""
    if "\0" in text(value):
        raise WrongValueError("the path of a directory")
    if text(value)[0] in "~$":
        raise WrongValueError("a path from the root on: neither ~ nor $VARIABLE is expanded")
    return Path(text(value))


@_takes({"type": "string", "pattern": r"^/[^\x00]*$"})
def file(value: object) -> Path:
    """Return the absolute path of a file, whether it exists or not."""
    path: Path = directory(value)
    if not path.is_absolute():
        raise WrongValueError("the path of a file, from the root on")
    return path


@_takes(_COMMAND)
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

    return Check(check, {"enum": [*words]})


packager_type = one_of(*PACKAGER_TYPES)
method = one_of(*Method)


_MODE: Final = r"^0?[0-7]{3}$"


@_takes({"type": "string", "pattern": _MODE})
def file_mode(value: object) -> int:
    """Return the permission bits of a file, such as ``"0640"``."""
    if not isinstance(value, str) or re.match(_MODE, value) is None:
        raise WrongValueError('the mode of a file in quotes, such as "0640"')
    return int(value, 8)


@_takes({"type": "object"})
def mapping(value: object) -> dict[str, Any]:
    """Return a mapping; its keys are checked later."""
    if not isinstance(value, dict):
        raise WrongValueError("a mapping")
    return value


@_takes({"type": "array", "items": _TEXT})
def texts(value: object) -> tuple[str, ...]:
    """Return a list of texts, each once."""
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise WrongValueError("a list of texts")
    return tuple(dict.fromkeys(value))


@_takes({"type": "array"})
def items(value: object) -> list[Any]:
    """Return a list; its items are checked later."""
    if not isinstance(value, list):
        raise WrongValueError("a list")
    return value


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)

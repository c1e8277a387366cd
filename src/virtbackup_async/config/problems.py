"""Collects the problems of a configuration, so that an admin sees all of them at once."""

from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from virtbackup_async.config.suggestion import did_you_mean
from virtbackup_async.config.yaml_file import KeyPath, YamlFile, dotted
from virtbackup_async.errors import ConfigError

_SECRETS = frozenset({"passphrase", "password", "urls"})


class Remark(Struct, frozen=True):
    """A problem at one place of the file.

    Attributes:
        line: counted from 1.
        message: one line, which begins with the key's path if it is about a key.
        instead: YAML to write in its place.
        is_typo: it is about a key that looks like one that exists.
    """

    path: Path
    line: int
    message: str
    instead: str | None = None
    is_typo: bool = False

    @property
    def place(self) -> str:
        """File and line, as editors take them."""
        return f"{self.path}:{self.line}"

    def __str__(self) -> str:
        instead = f", write instead:\n{self.instead}" if self.instead else ""
        return f"{self.place}: {self.message}{instead}"


class Problems:
    """Errors and warnings of one file."""

    def __init__(self, file: YamlFile) -> None:
        self._file = file
        # Dicts as ordered sets: each group may find the same problem in a default.
        self._errors: dict[Remark, None] = {}
        self._warnings: dict[Remark, None] = {}
        self._wrong: set[KeyPath] = set()

    @property
    def errors(self) -> tuple[Remark, ...]:
        """The problems that keep the file from being used, in the order they were found."""
        return tuple(self._errors)

    @property
    def warnings(self) -> tuple[Remark, ...]:
        """The problems that the admin should fix, in the order they were found."""
        return tuple(self._warnings)

    def error(self, key_path: KeyPath, message: str) -> None:
        """Add an error: the file cannot be used."""
        self._errors[self._remark(key_path, message)] = None
        self._wrong.add(key_path)

    def has_error(self, key_path: KeyPath) -> bool:
        """Return whether that very key has an error."""
        return key_path in self._wrong

    def warn(self, key_path: KeyPath, message: str, instead: str | None = None) -> None:
        """Add a warning; ``instead`` is the YAML to write."""
        self._warnings[self._remark(key_path, message, instead)] = None

    def unknown_key(self, key_path: KeyPath, message: str, known: Iterable[str]) -> None:
        """Add a warning about the last key of a path, which nothing reads.

        A run goes on, because a backup matters more; ``config check`` takes a typo for an error.

        Args:
            key_path: ends with the key.
            message: what is wrong with it.
            known: the keys that exist there.
        """
        meant = did_you_mean(str(key_path[-1]), known)
        remark = self._remark(key_path, f"{message}{meant}")
        self._warnings[replace(remark, is_typo=bool(meant))] = None

    def wrong(self, key_path: KeyPath, found: object, expected: str) -> None:
        """Add an error about a value of the wrong kind, without repeating a secret."""
        shown = "something else" if is_secret(key_path) else self._show(key_path, found)
        self.error(key_path, f"found {shown}, expected {expected}")

    def raise_errors(self) -> None:
        """Raise a ConfigError with all errors, a line each, if there are any."""
        if self._errors:
            hint = "'virtbackup config check' lists them." if len(self._errors) > 1 else None
            raise ConfigError("\n".join(map(str, self._errors)), hint=hint)

    def _show(self, key_path: KeyPath, found: object) -> str:
        """Return the value, and the written text if YAML reads it differently."""
        shown, written = show(found), self._file.written.get(key_path)
        if found is None or written in {None, shown}:
            return shown
        kind = shown if isinstance(found, bool | int | float) else f"a {type(found).__name__}"
        return f"{written:.60}, which YAML reads as {kind}"

    def _remark(self, key_path: KeyPath, message: str, instead: str | None = None) -> Remark:
        text = f"{dotted(key_path)}: {message}" if key_path else message
        return Remark(self._file.path, self._file.line_of(key_path), text, instead)


def is_secret(key_path: KeyPath) -> bool:
    """Return whether no message may repeat the value of a key."""
    return any(part in _SECRETS for part in key_path)


def show(value: object) -> str:
    """Return a YAML value for a message, short, and without the content of a collection."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case _:
            return f"{value!r:.60}"

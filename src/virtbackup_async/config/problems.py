"""Collects what is wrong with a configuration, so that an admin sees all of it at once."""

from virtbackup_async.config.yaml_file import KeyPath, YamlFile, dotted
from virtbackup_async.errors import ConfigError

_SECRETS = frozenset({"passphrase", "password", "urls"})


class Problems:
    """Errors and warnings of one file, each a line: file, line, key path, what is the matter."""

    def __init__(self, file: YamlFile) -> None:
        self._file = file
        # Dicts for their order: the same default may be found wrong by way of each group.
        self._errors: dict[str, None] = {}
        self._warnings: dict[str, None] = {}
        self._wrong: set[KeyPath] = set()

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings, in the order they were found."""
        return tuple(self._warnings)

    def error(self, key_path: KeyPath, message: str) -> None:
        """Note that the file cannot be used."""
        self._errors[self._line(key_path, message)] = None
        self._wrong.add(key_path)

    def has_error(self, key_path: KeyPath) -> bool:
        """Tell whether an error of that very key was noted."""
        return key_path in self._wrong

    def warn(self, key_path: KeyPath, message: str) -> None:
        """Note something that the admin should change."""
        self._warnings[self._line(key_path, message)] = None

    def wrong(self, key_path: KeyPath, found: object, expected: str) -> None:
        """Note a value of the wrong kind; a secret is not repeated."""
        shown = "something else" if key_path[-1] in _SECRETS else show(found)
        self.error(key_path, f"found {shown}, expected {expected}")

    def raise_errors(self) -> None:
        """Raise one ConfigError with all errors, a line each, if there is any."""
        if self._errors:
            raise ConfigError("\n".join(self._errors))

    def _line(self, key_path: KeyPath, message: str) -> str:
        where = f"{self._file.path}:{self._file.line_of(key_path)}"
        return f"{where}: {dotted(key_path)}: {message}" if key_path else f"{where}: {message}"


def show(value: object) -> str:
    """Return a YAML value for a message, short, and without what a collection holds."""
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

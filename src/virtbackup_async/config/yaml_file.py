"""Reads the YAML file, and remembers the line of every key.

``loading`` is the caller. Invariant: the tree that comes out is finite, small and without doubled
keys, and its keys are the text that was written; what is wrong is told with file, line and column,
and never with the text found there, since that may be the passphrase.

YAML 1.1 takes ``on`` and ``no`` for truth values, ``010`` for 8 and ``1:30`` for 90. Of keys that
is undone. Of values it is not: virt-backup reads them so, and a file is to go on meaning what it
meant. ``written`` has them, for who is to be told.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from virtbackup_async.errors import ConfigError
from virtbackup_async.model.amounts import size

FILE_MAX_BYTES = 1024 * 1024
WAYS_IN = (
    "Run `virtbackup init`, which proposes one and writes it, or write "
    "`virtbackup config example > FILE` and change that."
)
"""What to do without a configuration, or with an empty one."""

# Aliases count as often as they are used: "billion laughs" is small only on disk.
VALUES_MAX = 50_000
DEPTH_MAX = 50

KeyPath = tuple[str | int, ...]
# 0644 and -07 are octal, 1:30 and 20:30:40.5 count by sixty.
_ODD_NUMBER = re.compile(r"^[-+]?(?:0[0-7_]+|[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?)$")
_TEXT = "tag:yaml.org,2002:str"


@dataclass(frozen=True, slots=True)
class YamlFile:
    """A parsed file.

    Attributes:
        lines: the line (from 1) of each key and list item by its path.
        written: the text of each value that YAML takes for something other than text.
    """

    path: Path
    value: object = field(repr=False)
    lines: dict[KeyPath, int]
    written: dict[KeyPath, str] = field(repr=False)

    def line_of(self, key_path: KeyPath) -> int:
        """Return the line of a key, or that of the nearest one above it."""
        while key_path and key_path not in self.lines:
            key_path = key_path[:-1]
        return self.lines.get(key_path, 1)


def parse_yaml(data: bytes, path: Path) -> YamlFile:
    """Return the file's one document.

    Raises:
        ConfigError: it is not YAML, is empty or too large, or has a key twice.
    """
    if len(data) > FILE_MAX_BYTES:
        raise ConfigError(f"larger than {size(FILE_MAX_BYTES)}", path=path)
    try:
        loader = yaml.SafeLoader(data.decode("utf-8-sig"))
        node = loader.get_single_node()
        if node is None:
            raise ConfigError("is empty", path=path, hint=WAYS_IN)
        lines = _Lines(path)
        lines.visit(node, ())
        return YamlFile(path, loader.construct_document(node), lines.found, lines.written)
    except UnicodeDecodeError as error:
        raise ConfigError(f"not UTF-8 text, at byte {error.start}", path=path) from None
    except yaml.YAMLError as error:
        # The error has the text around it, and a traceback would show it.
        raise _as_config_error(error, path) from None
    except ValueError as error:
        raise ConfigError("a date or number in it is impossible", path=path) from error
    except RecursionError as error:
        raise ConfigError("nested too deeply", path=path) from error


class _Lines:
    """Walks the nodes as often as aliases use them, up to a limit."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[KeyPath, int] = {}
        self.written: dict[KeyPath, str] = {}
        self._visited = 0

    def visit(self, node: yaml.Node, key_path: KeyPath) -> None:
        self._visited += 1
        if self._visited > VALUES_MAX or len(key_path) > DEPTH_MAX:
            raise ConfigError("holds too many values, aliases counted in", path=self.path)
        if isinstance(node, yaml.MappingNode):
            self._visit_mapping(node, key_path)
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self._note((*key_path, index), item)
                self.visit(item, (*key_path, index))
        elif node.tag != _TEXT:
            self.written.setdefault(key_path, node.value)

    def _visit_mapping(self, node: yaml.MappingNode, key_path: KeyPath) -> None:
        seen: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigError("a key is not text", path=_place(self.path, key.start_mark))
            line = key.start_mark.line + 1
            if key.value in seen:
                name = dotted((*key_path, key.value))
                raise ConfigError(
                    f"{name}: found twice, first in line {seen[key.value]}",
                    path=f"{self.path}:{line}",
                )
            seen[key.value] = line
            is_merge = key.tag == "tag:yaml.org,2002:merge"
            if not is_merge:
                key.tag = _TEXT
            below = key_path if is_merge else (*key_path, key.value)
            self._note(below, key)
            self.visit(value, below)

    def _note(self, key_path: KeyPath, node: yaml.Node) -> None:
        self.found.setdefault(key_path, node.start_mark.line + 1)


def odd_number(written: str) -> int | float | None:
    """Return the number that YAML 1.1 reads in a text, if a person would read another one."""
    if not _ODD_NUMBER.match(written):
        return None
    value = yaml.safe_load(written)
    is_read_alike = not isinstance(value, int | float) or (
        ":" not in written and value == int(written.replace("_", ""))
    )
    return None if is_read_alike else value


def dotted(key_path: KeyPath) -> str:
    """Return a key path as text: ``groups.prod.hosts[2].disks``."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in key_path]
    return "".join(parts).removeprefix(".")


# What PyYAML found, by the beginning of its sentence: in a person's words, and what to do.
_EXPLAINED: tuple[tuple[str, str, str], ...] = (
    (
        "expected <block end>",
        "the indentation does not fit the keys or items that begin in line {line}",
        "Indent the line as its neighbours are.",
    ),
    ("found character '\\t'", "a tab", "YAML wants spaces at the beginning of a line."),
    (
        "mapping values are not allowed here",
        'a ":" that cannot stand here',
        "Put the value into quotes, or indent the line as its neighbours are.",
    ),
    ("could not find expected ':'", 'the key in line {line} has no ":"', "Write `key: value`."),
    ("found unexpected end of stream", "the quote in line {line} is never closed", "Close it."),
    ("expected ',' or ']'", 'the "[" in line {line} is never closed', "Close it."),
    ("expected ',' or '}'", 'the "{{" in line {line} is never closed', "Close it."),
    (
        "but found another document",
        "a second document",
        'Remove the line "---" and what follows it.',
    ),
    ("could not determine a constructor", 'a tag, a word that begins with "!"', "Quote it."),
    (
        "found character '",
        "a value that begins with a character that YAML keeps for itself",
        "Put it into quotes.",
    ),
)


def _as_config_error(error: yaml.YAMLError, path: Path) -> ConfigError:
    if not isinstance(error, yaml.MarkedYAMLError):
        return ConfigError("holds a character that YAML does not allow", path=path)
    mark = error.problem_mark or error.context_mark
    problem, hint = _explained(error, mark)
    return ConfigError(problem, path=_place(path, mark), hint=hint)


def _explained(error: yaml.MarkedYAMLError, mark: yaml.Mark | None) -> tuple[str, str | None]:
    if error.context == "while scanning an alias":
        return 'a "*" without quotes', "Put the value into quotes."
    problem = error.problem or "not YAML"
    for beginning, words, hint in _EXPLAINED:
        if problem.startswith(beginning):
            begins = error.context_mark or mark
            return words.format(line=begins.line + 1 if begins else "?"), hint
    # Single characters, and the escapes of such, tell nothing and help.
    return re.sub(r" ?'[^'\\][^']+'", "", problem), None


def _place(path: Path, mark: yaml.Mark | None) -> str:
    return f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)

"""Rewrites a configuration with today's keys; order, comments and quotes stay.

``config migrate`` is the caller. ``compat.config`` decides what changes; this module applies it to
the text of the file. Invariant: the new text means the same as the old one; that is checked before
it is returned. ``ruamel.yaml`` reads the text into a tree that remembers comments
with the key before them, which is why a key's comment has to be moved along with it::

    compression: xz    # the best           packager: tar    # the best
                                             packager_opts:
                                               compression: xz
    # a night's work                         # a night's work
    autostart: true                          autostart: true
"""

import io
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from msgspec import Struct
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.resolver import VersionedResolver
from ruamel.yaml.tokens import CommentToken

from virtbackup_async.compat import config as compat
from virtbackup_async.config.loading import examine_text
from virtbackup_async.config.yaml_file import parse_yaml
from virtbackup_async.errors import ConfigError

_HINT = "Change the file by hand; 'virtbackup config check' says what to write."


# The line that begins the document; the text before it is kept as it is.
_START = re.compile(r"\A(?:[ \t]*(?:#.*)?\n|%.*\n)*---[ \t]*(?:#.*)?\n")
_LONGEST_LINE = 1 << 20
_BEHIND = 2  # of ruamel's four tokens: the comment after a value, up to the next key


class Migration(Struct, frozen=True):
    """A configuration with today's keys.

    Attributes:
        data: the complete file, unchanged if nothing had to change.
        changes: the replaced keys.
    """

    data: bytes
    changes: tuple[compat.Change, ...]


def migrate(data: bytes, path: Path) -> Migration:
    """Return the content of a configuration file with today's keys; ``path`` is for messages.

    Raises:
        ConfigError: the file has errors, or an old key cannot be replaced.
    """
    before, problems = examine_text(data, path)
    problems.raise_errors()
    changes = _changes(data, path)
    if not changes:
        return Migration(data, changes)
    try:
        migrated = _replace_keys(data, changes)
        after, _ = examine_text(migrated, path)
        left = _changes(migrated, path)
    except (ConfigError, LookupError, YAMLError):
        # The error of a YAML reader has the text around it, which may be the passphrase.
        raise ConfigError(
            "its way of writing YAML is not understood", path=path, hint=_HINT
        ) from None
    if left:
        message = f"{path}: {left[0].name} comes from an anchor, and cannot be replaced there"
        raise ConfigError(message, hint=_HINT)
    if after != before:
        raise ConfigError("new keys would not mean the same", path=path, hint=_HINT)
    return Migration(migrated, changes)


def _changes(data: bytes, path: Path) -> tuple[compat.Change, ...]:
    raw = parse_yaml(data, path).value
    return tuple(compat.upgrade(raw)[1]) if isinstance(raw, dict) else ()


class _Verbatim(VersionedResolver):
    """Reads every plain scalar as text, so that ``yes``, ``0o7`` and ``~`` stay as written."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:  # noqa: ANN401 -- ruamel's
        is_special = kind is not ScalarNode or value in ("<<", "")
        return super().resolve(kind, value if is_special else "text", implicit)


def _replace_keys(data: bytes, changes: Iterable[compat.Change]) -> bytes:
    """Return the text of a file with the keys replaced.

    Raises:
        KeyError: a section to be changed is missing.
        YAMLError: ruamel.yaml cannot read it.
    """
    text = data.decode("utf-8-sig").replace("\r\n", "\n")
    start = _START.match(text)
    head = start[0] if start else ""
    editor = YAML(typ="rt")
    editor.Resolver = _Verbatim
    editor.preserve_quotes = True
    editor.width = _LONGEST_LINE
    tree = editor.load(text.removeprefix(head))
    editor.map_indent, editor.sequence_dash_offset = _indents(tree)
    editor.sequence_indent = editor.sequence_dash_offset + len("- ")
    for change in changes:
        section = tree
        for name in change.section:
            section = section[name]
        _replace(section, change)
    written = io.StringIO()
    editor.dump(tree, written)
    edited = head + written.getvalue()
    return (edited.replace("\n", "\r\n") if b"\r\n" in data else edited).encode()


def _replace(section: CommentedMap, change: compat.Change) -> None:
    """Put the new keys in place of the old ones, in pairs; remaining keys follow the last pair.

    A key that came with a merge (``<<``) is not in the section itself, and stays.
    """
    old_keys = [key for key in change.old if key in list(section)]
    new_keys = list(change.instead) if old_keys else []
    for old, new in zip(old_keys, new_keys, strict=False):
        place, comment = list(section).index(old), _take_comment(section, old)
        value = section.pop(old)
        # The value in the tree has its quotes.
        renamed = section[new] if _is_set(section.get(new)) else value
        _put(section, place, new, renamed if change.is_rename else change.instead[new])
        _add_comment(section, new, comment)
    for old in old_keys[len(new_keys) :]:
        _add_comment(section, new_keys[-1], _take_comment(section, old))
        del section[old]
    for above, new in pairwise(new_keys[len(old_keys) - 1 :]):
        behind, below = _split(_take_comment(section, above))
        _put(section, list(section).index(above) + 1, new, change.instead[new])
        _add_comment(section, above, behind)
        _add_comment(section, new, below)


def _is_set(value: object) -> bool:
    """Return whether a value of the tree is set; ``null`` is a text there."""
    return bool(yaml.safe_load(value) if type(value) is str else value)


def _put(section: CommentedMap, place: int, key: str, value: object) -> None:
    """Set a key to a value; put a new key at the given place."""
    present = section.get(key)
    if key not in list(section):
        section.insert(place, key, _tree(value))
    elif isinstance(present, CommentedMap) and isinstance(value, dict):
        gone = [name for name in present if name not in value]
        comments = [_take_comment(present, name) for name in gone]
        for name in gone:
            del present[name]
        present.update(_tree(value))
        for comment in comments:
            _add_comment(section, key, comment)
    elif present != value:
        section[key] = _tree(value)


def _tree(value: object) -> object:
    """Return a new value for the tree, in which every scalar is its text."""
    if isinstance(value, dict):
        return CommentedMap({name: _tree(item) for name, item in value.items()})
    return value if isinstance(value, str) else yaml.safe_dump(value).partition("\n")[0]


def _take_comment(section: CommentedMap, key: str) -> CommentToken | None:
    """Remove and return the comment after a key, up to the next key."""
    tokens = section.ca.items.pop(key, None)
    found: CommentToken | None = tokens[_BEHIND] if tokens else None
    return found


def _split(comment: CommentToken | None) -> tuple[CommentToken | None, CommentToken | None]:
    """Split a comment into the part after the value and the lines below it."""
    if comment is None:
        return None, None
    behind, _, below = comment.value.partition("\n")
    mark = comment.start_mark
    return (
        CommentToken(f"{behind}\n", mark) if behind else None,
        CommentToken(f"\n{below}", mark) if below else None,
    )


def _add_comment(section: CommentedMap, key: str, comment: CommentToken | None) -> None:
    """Add a comment after a key, or after the last line of its value."""
    if comment is None:
        return
    value = section[key]
    if isinstance(value, CommentedMap) and value:
        _add_comment(value, list(value)[-1], comment)
        return
    tokens = section.ca.items.setdefault(key, [None, None, None, None])
    if tokens[_BEHIND] is None:
        tokens[_BEHIND] = comment
    else:
        tokens[_BEHIND].value += comment.value


def _indents(tree: CommentedMap) -> tuple[int, int]:
    """Return how many columns the file indents nested mappings, and the dashes of lists."""
    mappings: list[int] = []
    dashes: list[int] = []
    for above, below in _nested(tree):
        found = mappings if isinstance(below, CommentedMap) else dashes
        if isinstance(above, CommentedMap) and not below.fa.flow_style():
            found.append(below.lc.col - above.lc.col)
    return mappings[0] if mappings else 2, dashes[0] if dashes else 0


def _nested(tree: CommentedMap | CommentedSeq) -> Iterator[tuple[Any, Any]]:
    """Yield each nested collection, after the one that contains it."""
    for below in tree.values() if isinstance(tree, CommentedMap) else tree:
        if isinstance(below, CommentedMap | CommentedSeq):
            yield tree, below
            yield from _nested(below)

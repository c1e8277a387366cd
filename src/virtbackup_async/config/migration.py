"""Writes a configuration with old keys anew, with today's: order, comments and quotes stay.

``config migrate`` is the caller. What changes, ``compat.config`` alone decides; here its changes
are carried into the file's text. Invariant: the new text means what the old one did, which is
checked before it is handed out. See ``yaml_edit`` for the text.
"""

from pathlib import Path

from msgspec import Struct
from ruamel.yaml.error import YAMLError

from virtbackup_async.compat import config as compat
from virtbackup_async.config.loading import examine_text
from virtbackup_async.config.yaml_edit import replace_keys
from virtbackup_async.config.yaml_file import parse_yaml
from virtbackup_async.errors import ConfigError

_HINT = "Change the file by hand; 'virtbackup config check' says what to write."


class Migration(Struct, frozen=True):
    """A configuration with today's keys.

    Attributes:
        data: the whole file; as it was if nothing had to change.
        changes: what was changed.
    """

    data: bytes
    changes: tuple[compat.Change, ...]


def migrate(data: bytes, path: Path) -> Migration:
    """Return the content of a configuration file with today's keys; ``path`` is for messages.

    Raises:
        ConfigError: the file is wrong, or an old key cannot be replaced where it stands.
    """
    before, problems = examine_text(data, path)
    problems.raise_errors()
    changes = _changes(data, path)
    if not changes:
        return Migration(data, changes)
    try:
        migrated = replace_keys(data, changes)
        after, _ = examine_text(migrated, path)
        left = _changes(migrated, path)
    except (ConfigError, LookupError, YAMLError):
        # The error of a YAML reader holds the text around it, which may be the passphrase.
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

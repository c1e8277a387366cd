"""The keys that this process holds in memory: typed, or handed over by a program.

A ``StorageLocation`` names one by a word that means nothing elsewhere: locations stand in messages,
in host notes and in the arguments of tasks, keys do not.
"""

import secrets
from threading import Lock
from typing import Final

from virtbackup_async.errors import ConfigError
from virtbackup_async.repository.storage.key import Key

_turn: Final = Lock()
_held: Final[dict[str, Key]] = {}


def hold_key(key: Key) -> str:
    """Hold a key; return its name for ``StorageLocation.held_key``. ``release_key`` it."""
    name = secrets.token_hex(8)
    with _turn:
        _held[name] = key
    return name


def held_key(name: str) -> Key:
    """Return a key by its name.

    Raises:
        ConfigError: it was released.
    """
    with _turn:
        key = _held.get(name)
    if key is None:
        raise ConfigError("the key is not held any more", hint="Open the target again.")
    return key


def release_key(name: str) -> None:
    """Forget a key; what was opened with it must be forgotten as well."""
    with _turn:
        _held.pop(name, None)

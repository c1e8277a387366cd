"""What opens encrypted targets, other than a key file."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what opens a repository takes long to load
    from virtbackup_async.repository import Key

Given = str | bytes | Callable[[], str | bytes]
"""Text, or UTF-8, or a function that returns one of them: called once, in a worker thread."""


class Passphrase:
    """A passphrase that opens encrypted targets.

    Args:
        given: the passphrase, or a function that asks for it.
    """

    def __init__(self, given: Given) -> None:
        self._given = given

    def key(self) -> "Key":
        """Return the key; raises a ConfigError if it is none. Blocks."""
        from virtbackup_async.repository import key_of_passphrase

        return key_of_passphrase(_text(self._given))


class RecoveryKey:
    """A recovery key, which opens encrypted targets; of sealed ones, it alone opens the disks.

    Args:
        given: the key as it is printed, or a function that asks for it.
    """

    def __init__(self, given: Given) -> None:
        self._given = given

    def key(self) -> "Key":
        """Return the key; raises a ConfigError if it is mistyped. Blocks."""
        from virtbackup_async.repository import key_of_paper

        return key_of_paper(_text(self._given))


@contextmanager
def holding(key: "Key") -> Iterator[str]:
    """Hold a key in memory, and yield the name that locations have of it."""
    from virtbackup_async.repository import drop_key, hold_key

    name = hold_key(key)
    try:
        yield name
    finally:
        drop_key(name)


def _text(given: Given) -> str:
    value = given() if callable(given) else given
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value

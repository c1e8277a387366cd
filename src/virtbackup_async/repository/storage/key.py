"""A key that opens a repository: what is in a key file, a passphrase, a recovery key."""

import secrets
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from virtbackup_async.errors import ConfigError
from virtbackup_async.repository.keys import recovery, slots, written_secret
from virtbackup_async.repository.keys.secret import Secret
from virtbackup_async.repository.keys.slots import Slot, SlotKind
from virtbackup_async.repository.storage.key_file import read_key_file
from virtbackup_async.repository.storage.no_core_dumps import refuse_core_dumps

LEAST_PASSPHRASE: Final = 8


class Key(Struct, frozen=True):
    """What somebody opens a repository with.

    Attributes:
        kind: which slots it may open.
        secret: the key file's, the recovery key's, or the passphrase.
    """

    kind: SlotKind
    secret: Secret

    def __post_init__(self) -> None:
        refuse_core_dumps()

    @classmethod
    def of_key_file(cls, path: Path) -> "Key":
        """Return the key in a key file; raises as ``read_key_file``. Blocks."""
        return cls(SlotKind.KEY_FILE, read_key_file(path))

    @classmethod
    def of_passphrase(cls, text: str) -> "Key":
        """Return the key that a passphrase is."""
        return cls(SlotKind.PASSPHRASE, passphrase_of(text))

    @classmethod
    def of_paper(cls, text: str) -> "Key":
        """Return the recovery key that somebody typed; a ConfigError if it is mistyped."""
        return cls(SlotKind.RECOVERY, written_secret.read(written_secret.RECOVERY, text))

    def open(self, slot: Slot) -> list[Secret] | None:
        """Return the master secrets in a slot of its kind, if it opens the slot. Blocks."""
        return _OPENERS[self.kind](slot, self.secret)

    def seal(self, slot: Slot, masters: Sequence[Secret]) -> Slot:
        """Return a slot of its kind with master secrets. Blocks for a while."""
        if self.kind is SlotKind.PASSPHRASE:
            salt = secrets.token_bytes(slots.SALT_BYTES)
            return slots.with_passphrase(slot, masters, self.secret, salt)
        if self.kind is SlotKind.KEY_FILE:
            return slots.with_key_file(slot, masters, self.secret)
        return slots.with_recovery(slot, masters, recovery.public_half(self.secret))


_OPENERS: Final[dict[SlotKind, Callable[[Slot, Secret], list[Secret] | None]]] = {
    SlotKind.PASSPHRASE: slots.open_with_passphrase,
    SlotKind.KEY_FILE: slots.open_with_key_file,
    SlotKind.RECOVERY: slots.open_with_recovery,
}


def passphrase_of(text: str) -> Secret:
    """Return a passphrase, so that it is the same however the keyboard composes its letters."""
    return Secret(unicodedata.normalize("NFC", text).encode("utf-8", "surrogateescape"))


def check_new_passphrase(text: str) -> None:
    """Check that somebody does not choose a passphrase that is soon guessed.

    Raises:
        ConfigError: it is shorter than 8 characters.
    """
    if len(unicodedata.normalize("NFC", text)) < LEAST_PASSPHRASE:
        raise ConfigError(
            f"the passphrase is too short: it needs {LEAST_PASSPHRASE} characters",
            hint="Take several words, or print a recovery key instead.",
        )

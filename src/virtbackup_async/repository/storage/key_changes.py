"""Adding, removing and rotating the keys of an encrypted repository.

::

    rotate   a new master secret       a new slot for each holder, each durable
             then                      the repository file, with the number of secrets
             then                      the old slots are removed

A crash in between leaves both slots of a holder: the one with more master secrets counts. Changes
run under the lease of the prune, one at a time: two rotations would make two keys of one
generation. Backups continue; those that run finish with the keys that they have.
"""

import secrets
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from msgspec import Struct

from virtbackup_async.errors import ConfigError, NotFoundError
from virtbackup_async.repository.keys import recovery, slots, written_secret
from virtbackup_async.repository.keys.keyring import MAX_GENERATIONS, Keys
from virtbackup_async.repository.keys.secret import SECRET_BYTES, Secret
from virtbackup_async.repository.keys.slots import Cost, Slot, SlotKind
from virtbackup_async.repository.storage.description import Description
from virtbackup_async.repository.storage.encrypted import check_opened, describe
from virtbackup_async.repository.storage.interface import Storage
from virtbackup_async.repository.storage.key_file import make_key_file, read_key_file
from virtbackup_async.repository.storage.key_slots import (
    NamedSlot,
    list_slots,
    new_slot,
    open_slot,
    remove_slot,
    write_slot,
)
from virtbackup_async.repository.storage.layout import REPOSITORY_FILE
from virtbackup_async.repository.storage.leases import take_prune_lease

LEAST_PASSPHRASE: Final = 8


class Key(Struct, frozen=True):
    """What somebody opens a repository with.

    Attributes:
        kind: which slots it may open.
        secret: the key file's, the recovery key's, or the passphrase.
    """

    kind: SlotKind
    secret: Secret

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


class KeyChanges:
    """Changes to the keys of a repository, for somebody who has one; all methods block.

    Attributes:
        generations: how many master secrets there are.
    """

    def __init__(self, storage: Storage, key: Key, found: Description) -> None:
        """Open the slots.

        Args:
            storage: of the target, not sealed.
            key: of whoever changes them.
            found: what the repository file says.

        Raises:
            ConfigError: the key opens no slot, or one of before a rotation.
            CorruptError: the repository file was changed by somebody without the keys.
            StorageError: the slots cannot be read.
        """
        self._storage = storage
        self._key = key
        self._own, self._masters = open_slot(storage, key.kind, key.open, found.keys)
        check_opened(storage, found, self._own, self._masters)
        self.generations = len(self._masters)

    def add(self, key: Key, label: str, cost: Cost | None = None) -> str:
        """Add a slot for a key; return its name.

        Raises:
            ConfigError: the key opens a slot already, or the label is no short line of text.
            StorageError: the target is full or not writable.
        """
        self._refuse_known(key)
        slot = self._new(key.kind, label, cost)
        return write_slot(self._storage, key.seal(slot, self._masters))

    def add_key_file(self, path: Path, label: str) -> str:
        """Make a key file if it is missing, and add a slot for it; raises as ``add``."""
        _check_label(label)
        return self.add(Key(SlotKind.KEY_FILE, make_key_file(path)), label)

    def add_recovery(self, label: str) -> tuple[str, Secret]:
        """Add a slot for a new recovery key; return its name, and the key, which is kept nowhere.

        Raises:
            StorageError: the target is full or not writable.
        """
        paper = Secret(secrets.token_bytes(SECRET_BYTES))
        return self.add(Key(SlotKind.RECOVERY, paper), label), paper

    def remove(self, name: str) -> NamedSlot:
        """Remove a slot, and return it.

        Raises:
            NotFoundError: there is no such slot.
            ConfigError: it is the slot of the key that is used for this.
            StorageError: the target is not writable.
        """
        found = next((each for each in self._slots() if each.name == name), None)
        if found is None:
            raise NotFoundError(f"no key slot {name!r}", hint="Run 'virtbackup key list'.")
        if name == self._own.name:
            raise ConfigError(
                "a key does not remove its own slot",
                hint="Open the repository with another key to remove this one.",
            )
        remove_slot(self._storage, name)
        return found

    def rotate(self, others: Sequence[Key] = ()) -> int:
        """Add a master secret, for all that is written from now on; return how many there are.

        The slots of recovery keys are renewed without them, others only with their keys.

        Args:
            others: the keys of the other slots.

        Raises:
            ConfigError: there is a slot whose key is not here; nothing was changed.
            LockHeldError: a prune, a repair or another change is running.
            StorageError: the target is full or not writable; old slots still open.
        """
        with self._alone():
            if self.generations == MAX_GENERATIONS:
                raise ConfigError("the keys were rotated too often")
            masters = [*self._masters, Secret(secrets.token_bytes(SECRET_BYTES))]
            old = self._slots()
            # By holder: a rotation that was killed left two slots of some.
            holders = {_holder_of(named, [self._key, *others]): named.slot for named in old}
            renewed = [_renewed(slot, masters, holder) for holder, slot in holders.items()]
            for slot in renewed:
                write_slot(self._storage, slot)
            description = describe(self._own.slot.repository, Keys(masters))
            self._storage.replace(REPOSITORY_FILE, description)
            for named in old:
                remove_slot(self._storage, named.name)
            self._own, self._masters = open_slot(
                self._storage, self._key.kind, self._key.open, self._own.slot.keys
            )
            self.generations = len(self._masters)
            return self.generations

    def _slots(self) -> list[NamedSlot]:
        """Return the slots of these keys."""
        found, damaged = list_slots(self._storage)
        if damaged:
            raise damaged[0]
        own = self._own.slot
        return [
            each
            for each in found
            if (each.slot.keys, each.slot.repository) == (own.keys, own.repository)
        ]

    def _refuse_known(self, key: Key) -> None:
        for named in self._slots():
            if named.slot.kind is key.kind and key.open(named.slot) is not None:
                raise ConfigError(f"the key opens key slot {named.name} already")

    def _new(self, kind: SlotKind, label: str, cost: Cost | None) -> Slot:
        _check_label(label)
        own = self._own.slot
        return new_slot(own.repository, own.keys, kind, label, cost or Cost())

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other changes away, and look again at the slots."""
        lease = take_prune_lease(self._storage)
        try:
            _, masters = open_slot(
                self._storage, self._key.kind, self._key.open, self._own.slot.keys
            )
            self._masters, self.generations = masters, len(masters)
            yield
            lease.check()
        finally:
            lease.close()


def _holder_of(named: NamedSlot, keys: Sequence[Key]) -> Key | bytes:
    """Return who opens a slot: a key that is here, or the public half of a recovery key.

    Raises:
        ConfigError: the key is not here.
    """
    slot = named.slot
    if slot.kind is SlotKind.RECOVERY:
        return slot.public
    for key in keys:
        if key.kind is slot.kind and key.open(slot) is not None:
            return key
    raise ConfigError(
        f"the key of key slot {named.name} ({slot.kind}, {slot.label}) is not here",
        hint="Remove the slot, rotate the keys, and add it again.",
    )


def _renewed(slot: Slot, masters: Sequence[Secret], holder: Key | bytes) -> Slot:
    """Return a slot for the same holder, with other master secrets. Blocks for a while."""
    if isinstance(holder, bytes):
        return slots.with_recovery(slot, masters, holder)
    return holder.seal(slot, masters)


def _check_label(label: str) -> None:
    if not label or len(label) > slots.MAX_LABEL or not label.isprintable():
        raise ConfigError(f"a label is one short line of text: {label!r:.40}")

"""Adding, removing and rotating the keys of an encrypted repository.

::

    rotate   a new master secret       a new slot for each holder, each durable
             then                      the repository file, with the number of secrets
             then                      the old slots are removed

A crash in between leaves both slots of a holder: the one with more master secrets counts. Changes
run under the lease of the prune, one at a time: two rotations would make two keys of one
generation. Backups continue; those that run finish with the keys that they have.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from virtbackup_async.errors import ConfigError, NotFoundError
from virtbackup_async.repository.keys import slots
from virtbackup_async.repository.keys.keyring import MAX_GENERATIONS, Keys
from virtbackup_async.repository.keys.secret import Secret, new_secret
from virtbackup_async.repository.keys.slots import Cost, Slot, SlotKind
from virtbackup_async.repository.storage.description import Description
from virtbackup_async.repository.storage.encrypted import check_opened, describe
from virtbackup_async.repository.storage.interface import Storage
from virtbackup_async.repository.storage.key import Key
from virtbackup_async.repository.storage.key_file import make_key_file
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
        self._public = found.public
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
            ConfigError: the repository is sealed, for one recovery key alone.
            StorageError: the target is full or not writable.
        """
        if self._public is not None:
            raise ConfigError(
                "a sealed repository has one recovery key: another would open no disk",
                hint="Make copies of the print, or copy the backups into a new repository.",
            )
        paper = new_secret()
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
        if self._public is not None and found.slot.kind is SlotKind.RECOVERY:
            raise ConfigError(
                "nothing but its recovery key opens the disks in a sealed repository",
                hint="If it got into wrong hands, copy the backups into a new repository.",
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
            masters = [*self._masters, new_secret()]
            old = self._slots()
            # By holder: a rotation that was killed left two slots of some.
            holders = {_holder_of(named, [self._key, *others]): named.slot for named in old}
            renewed = [_renewed(slot, masters, holder) for holder, slot in holders.items()]
            for slot in renewed:
                write_slot(self._storage, slot)
            description = describe(self._own.slot.repository, Keys(masters), self._public)
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

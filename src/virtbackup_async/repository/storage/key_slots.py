"""The key slots of a repository: finding the one that a key opens, adding and removing them.

::

    keys/3f9a0c51b7d2e846     one slot a file; its name is random, what it is stands in it

Slots of other keys are passed over: one of two that made the repository at the same moment left
them. The last slot is never removed.
"""

import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from msgspec import Struct

from virtbackup_async.errors import ConfigError, CorruptError
from virtbackup_async.repository.keys import slots
from virtbackup_async.repository.keys.secret import Secret
from virtbackup_async.repository.keys.slots import MAX_SLOT_BYTES, Cost, Slot, SlotKind
from virtbackup_async.repository.storage.interface import Kind, Storage
from virtbackup_async.repository.storage.layout import KEYS

MAX_SLOTS: Final = 100
_NAME_BYTES: Final = 8

Opener = Callable[[Slot], list[Secret] | None]


class NamedSlot(Struct, frozen=True):
    """A slot, and the name of its file in ``keys``."""

    name: str
    slot: Slot


def new_slot(
    repository: bytes, keys: bytes, kind: SlotKind, label: str, cost: Cost | None = None
) -> Slot:
    """Return a slot that holds nothing yet."""
    created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Slot(repository, keys, kind, label, created, cost=cost or Cost())


def write_slot(storage: Storage, slot: Slot) -> str:
    """Write a slot, durably; return its name. Blocks.

    Raises:
        StorageError: the target is full or not writable.
    """
    storage.make_directory(KEYS)
    name = secrets.token_hex(_NAME_BYTES)
    storage.put_new(f"{KEYS}/{name}", slots.encode(slot))
    return name


def remove_slot(storage: Storage, name: str) -> None:
    """Remove a slot, durably. Blocks."""
    storage.remove(f"{KEYS}/{name}")


def list_slots(storage: Storage) -> tuple[list[NamedSlot], list[CorruptError]]:
    """Return the slots that can be read, by name, and the errors of the others. Blocks.

    Raises:
        StorageError: they cannot be listed.
    """
    try:
        names = storage.names(KEYS, {Kind.FILE})
    except FileNotFoundError:
        return [], []
    found, damaged = [], []
    for name in [name for name in names if not name.startswith(".")][:MAX_SLOTS]:
        where = storage.where(f"{KEYS}/{name}")
        data = storage.read(f"{KEYS}/{name}", MAX_SLOT_BYTES)
        if data is None:
            continue
        try:
            found.append(NamedSlot(name, slots.decode(data, where)))
        except CorruptError as error:
            damaged.append(error)
    return found, damaged


def open_slot(
    storage: Storage, kind: SlotKind, open_: Opener, keys: bytes | None = None
) -> tuple[NamedSlot, Sequence[Secret]]:
    """Return the slot that a key opens, and the master secrets in it. Blocks.

    Of several, as a rotation that was killed leaves them, the one with the most secrets.

    Args:
        storage: of the target.
        kind: of the key.
        open_: opens a slot of that kind, or returns None.
        keys: the id of the keys; None for any.

    Raises:
        ConfigError: none opens.
        StorageError: the slots cannot be read.
    """
    found, damaged = list_slots(storage)
    opened: list[tuple[NamedSlot, Sequence[Secret]]] = []
    for named in found:
        if named.slot.kind is kind and keys in {None, named.slot.keys}:
            masters = open_(named.slot)
            if masters is not None:
                opened.append((named, masters))
    if opened:
        return max(opened, key=lambda each: len(each[1]))
    where = storage.where(KEYS)
    message = f"the {_NAMES[kind]} opens no key slot in {where}"
    if damaged:
        raise ConfigError(f"{message}: {damaged[0].message}")
    raise ConfigError(message, hint=_HINT)


_NAMES: Final = {
    SlotKind.PASSPHRASE: "passphrase",
    SlotKind.KEY_FILE: "key file",
    SlotKind.RECOVERY: "recovery key",
}
_HINT: Final = "It is the wrong key, or the target holds another repository than it did."

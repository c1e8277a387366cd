"""Opening, making and repairing a repository that is encrypted.

::

    key file --opens--> a key slot --> master secrets --> keys --> sealing, SealedStorage

Order of making: the key file, a key slot, then the repository file, each durable. So a repository
that exists has a slot that opens. Loaded only if a repository or the configuration asks for it.
"""

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from virtbackup_async.errors import ConfigError, CorruptError
from virtbackup_async.repository.keys.keyed_sealing import KeyedSealing
from virtbackup_async.repository.keys.keyring import Keys
from virtbackup_async.repository.keys.secret import SECRET_BYTES, Secret
from virtbackup_async.repository.keys.slots import SlotKind, open_with_key_file, with_key_file
from virtbackup_async.repository.storage import description, key_slots
from virtbackup_async.repository.storage.description import Description
from virtbackup_async.repository.storage.interface import Storage
from virtbackup_async.repository.storage.key_file import make_key_file, read_key_file
from virtbackup_async.repository.storage.key_slots import NamedSlot
from virtbackup_async.repository.storage.layout import KEYS, REPOSITORY_FILE, Repository
from virtbackup_async.repository.storage.sealed import SealedStorage
from virtbackup_async.repository.storage.this_host import host_name

_ID_BYTES: Final = description.ID_BYTES


def open_encrypted(storage: Storage, found: Description, key_file: Path) -> Repository:
    """Return an encrypted repository, opened with a key file. Blocks.

    Raises:
        ConfigError: the key file is missing or not private, or opens no slot.
        CorruptError: the repository file was changed by somebody without the keys.
    """
    secret = read_key_file(key_file)
    named, masters = key_slots.open_slot(
        storage, SlotKind.KEY_FILE, lambda slot: open_with_key_file(slot, secret), found.keys
    )
    keys = check_opened(storage, found, named, masters)
    return Repository(SealedStorage(storage, keys, found.id), found.id, KeyedSealing(keys))


def check_opened(
    storage: Storage, found: Description, named: NamedSlot, masters: Sequence[Secret]
) -> Keys:
    """Return the keys in a slot, once the slot and the repository file fit together.

    Args:
        storage: of the target, not sealed.
        found: what the repository file says.
        named: the slot.
        masters: the master secrets in it.

    Raises:
        ConfigError: the slot is older than the last rotation.
        CorruptError: the repository file was changed by somebody without the keys.
    """
    if len(masters) < found.generations:
        raise ConfigError(
            f"key slot {named.name} in {storage.where(KEYS)} is older than the keys",
            hint="Somebody brought it back after the keys were rotated: see who, and add the key "
            "file again with another key.",
        )
    keys = Keys(masters)
    is_authentic = found.is_authentic(keys.description.reveal())
    if found.id != named.slot.repository or not is_authentic:
        where = storage.where(REPOSITORY_FILE)
        raise CorruptError(
            f"not what was written with the keys of this repository: {where}",
            hint="See who can write to the target, and bring the file back from a copy.",
        )
    return keys


def make_encrypted(storage: Storage, key_file: Path) -> None:
    """Make an encrypted repository, unless another process is first. Blocks.

    Raises:
        ConfigError: the key file is not private, or damaged.
        StorageError: the target is missing, full or not writable.
    """
    secret = make_key_file(key_file)
    master = Secret(secrets.token_bytes(SECRET_BYTES))
    repository_id = secrets.token_bytes(_ID_BYTES)
    keys = Keys([master])
    slot = key_slots.new_slot(repository_id, keys.id, SlotKind.KEY_FILE, host_name())
    name = key_slots.write_slot(storage, with_key_file(slot, [master], secret))
    data = describe(repository_id, keys)
    try:
        storage.put_new(REPOSITORY_FILE, data)
    except FileExistsError:
        key_slots.remove_slot(storage, name)


def describe(repository_id: bytes, keys: Keys) -> bytes:
    """Return the repository file of a repository with these keys."""
    generations = len(keys.generations)
    return description.encode_sealed(repository_id, keys.id, generations, keys.description.reveal())


def rewrite_description(storage: Storage, key_file: Path) -> None:
    """Write the lost repository file of an encrypted repository again. Blocks.

    The slot that the key file opens has the id of the repository, and is authentic.

    Raises:
        ConfigError: the key file opens no slot.
        StorageError: the target is not writable.
    """
    secret = read_key_file(key_file)
    named, masters = key_slots.open_slot(
        storage, SlotKind.KEY_FILE, lambda slot: open_with_key_file(slot, secret)
    )
    keys = Keys(masters)
    storage.replace(REPOSITORY_FILE, describe(named.slot.repository, keys))

"""Opening, making and repairing a repository that is encrypted.

::

    key --opens--> a key slot --> master secrets --> keys --> sealing, SealedStorage

Of a sealed repository, the master secrets open names, maps and the index, and no chunk: the keys of
packs are sealed for its recovery key. Which one that is, the configuration says, so nobody with the
keys of a host can have the others seal for a key of theirs.

Order of making: the key file, a key slot, then the repository file, each durable. So a repository
that exists has a slot that opens. Loaded only if a repository or the configuration asks for it.
"""

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from virtbackup_async.errors import ConfigError, CorruptError
from virtbackup_async.repository.format import sealed_json
from virtbackup_async.repository.keys import recovery
from virtbackup_async.repository.keys.keyed_sealing import KeyedSealing
from virtbackup_async.repository.keys.keyring import Keys
from virtbackup_async.repository.keys.pack_keys import SealedPackKeys
from virtbackup_async.repository.keys.secret import Secret, new_secret
from virtbackup_async.repository.keys.slots import SlotKind, with_key_file, with_recovery
from virtbackup_async.repository.storage import description, key_slots
from virtbackup_async.repository.storage.description import Description
from virtbackup_async.repository.storage.interface import Storage
from virtbackup_async.repository.storage.key import Key
from virtbackup_async.repository.storage.key_file import make_key_file
from virtbackup_async.repository.storage.key_slots import NamedSlot
from virtbackup_async.repository.storage.layout import (
    DIRECTORY,
    KEYS,
    REPOSITORY_FILE,
    Repository,
    list_packs,
)
from virtbackup_async.repository.storage.public_file import read_public_file
from virtbackup_async.repository.storage.run_key_files import RunKeyFiles
from virtbackup_async.repository.storage.run_keys import run_key_names
from virtbackup_async.repository.storage.sealed import SealedStorage
from virtbackup_async.repository.storage.this_host import host_name

_ID_BYTES: Final = description.ID_BYTES


def open_encrypted(
    storage: Storage, found: Description, key: Key, sealed_for: Path | None = None
) -> Repository:
    """Return an encrypted repository, opened with a key. Blocks.

    Args:
        storage: of the target, not sealed.
        found: what the repository file says.
        key: opens a slot; of a sealed repository, chunks open with the recovery key alone.
        sealed_for: the public half of the recovery key that the repository must be sealed for;
            None if that does not matter.

    Raises:
        ConfigError: the key opens no slot, or the repository is sealed for another key or none.
        CorruptError: the repository file was changed by somebody without the keys.
    """
    named, masters = key_slots.open_slot(storage, key.kind, key.open, found.keys)
    keys = check_opened(storage, found, named, masters)
    if sealed_for is not None and read_public_file(sealed_for) != found.public:
        raise _sealed_otherwise(storage, found, sealed_for)
    files = SealedStorage(storage, keys, found.id)
    if found.public is None:
        return Repository(files, found.id, KeyedSealing(keys))
    paper = key.secret if key.kind is SlotKind.RECOVERY else None
    pack_keys = SealedPackKeys(keys.id, found.public, paper, RunKeyFiles(files))
    return Repository(files, found.id, KeyedSealing(keys, pack_keys))


def _sealed_otherwise(storage: Storage, found: Description, path: Path) -> ConfigError:
    where = storage.where(DIRECTORY)
    if found.public is None:
        return ConfigError(
            f"repository is not sealed: {where}",
            hint="Take 'sealed_for' out of the group, or name another target and copy the backups. "
            "If the repository was sealed, somebody exchanged it.",
        )
    return ConfigError(
        f"repository is sealed for another recovery key than {path}: {where}",
        hint="Bring the right file back. If it is the right one, somebody with the keys of a host "
        "changed the repository, to read what is written from then on.",
    )


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
    keys = Keys(masters, can_read=found.public is None)
    is_authentic = found.is_authentic(keys.description.reveal())
    if found.id != named.slot.repository or not is_authentic:
        where = storage.where(REPOSITORY_FILE)
        raise CorruptError(
            f"not what was written with the keys of this repository: {where}",
            hint="See who can write to the target, and bring the file back from a copy.",
        )
    return keys


def masters_of(storage: Storage, key: Path | Key) -> Sequence[Secret]:
    """Return the master secrets of a repository, for another one with the same keys. Blocks.

    Raises:
        ConfigError: the key opens no slot.
        CorruptError: the repository file is damaged, or was changed by somebody without the keys.
    """
    key = Key.of_key_file(key) if isinstance(key, Path) else key
    where = storage.where(REPOSITORY_FILE)
    data = storage.read(REPOSITORY_FILE, sealed_json.MAX_BYTES)
    if data is None:
        raise CorruptError(f"missing: {where}")
    found = description.decode(data, where)
    named, masters = key_slots.open_slot(storage, key.kind, key.open, found.keys)
    check_opened(storage, found, named, masters)
    return masters


def make_encrypted(
    storage: Storage,
    key_file: Path,
    sealed_for: Path | None = None,
    masters: Sequence[Secret] = (),
) -> None:
    """Make an encrypted repository, unless another process is first. Blocks.

    Args:
        storage: of the target, not sealed.
        key_file: opens it; made if it is missing.
        sealed_for: the file with the public half of the recovery key that is to open its chunks;
            None if every key is to open them.
        masters: the master secrets of another repository; none for a new one.

    Raises:
        ConfigError: a key file is not private, missing or damaged.
        StorageError: the target is missing, full or not writable.
    """
    public = None if sealed_for is None else read_public_file(sealed_for)
    secret = make_key_file(key_file)
    masters = masters or [new_secret()]
    repository_id = secrets.token_bytes(_ID_BYTES)
    keys = Keys(masters)
    slot = key_slots.new_slot(repository_id, keys.id, SlotKind.KEY_FILE, host_name())
    made = [with_key_file(slot, masters, secret)]
    if public is not None:
        slot = key_slots.new_slot(repository_id, keys.id, SlotKind.RECOVERY, "opens the disks")
        made.append(with_recovery(slot, masters, public))
    names = [key_slots.write_slot(storage, each) for each in made]
    data = describe(repository_id, keys, public)
    try:
        storage.put_new(REPOSITORY_FILE, data)
    except FileExistsError:
        for name in names:
            key_slots.remove_slot(storage, name)


def describe(repository_id: bytes, keys: Keys, public: bytes | None) -> bytes:
    """Return the repository file of a repository with these keys."""
    generations, key = len(keys.generations), keys.description.reveal()
    return description.encode_encrypted(repository_id, keys.id, generations, key, public)


def rewrite_description(storage: Storage, key: Key, sealed_for: Path | None = None) -> None:
    """Write the lost repository file of an encrypted repository again. Blocks.

    The slot that the key opens has the id of the repository, and is authentic. For which recovery
    key a repository is sealed, nothing in the store says that could be trusted.

    Raises:
        ConfigError: the key opens no slot, or it is not known what the repository was sealed for.
        StorageError: the target is not writable.
    """
    named, masters = key_slots.open_slot(storage, key.kind, key.open)
    keys, id_ = Keys(masters, can_read=False), named.slot.repository
    public = None if sealed_for is None else read_public_file(sealed_for)
    has_runs = bool(run_key_names(SealedStorage(storage, keys, id_)))
    if has_runs and public is None and key.kind is SlotKind.RECOVERY:
        public = recovery.public_half(key.secret)
    has_packs = next(list_packs(storage), None) is not None
    if (public is None) is has_runs and (has_packs or has_runs):
        where = storage.where(DIRECTORY)
        raise ConfigError(
            f"repository {'is' if has_runs else 'was not'} sealed: {where}",
            hint="Write 'sealed_for' into 'encryption' if it is, and only then.",
        )
    storage.replace(REPOSITORY_FILE, describe(id_, keys, public))

"""Ways to the keys of a repository, for whoever lists or changes them.

``cryptography`` is loaded only when a slot is read. Passphrases and keys are handed on as secrets
from the moment when they are typed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from virtbackup_async.errors import NotFoundError
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository.format import sealed_json
from virtbackup_async.repository.storage import description
from virtbackup_async.repository.storage.description import Description
from virtbackup_async.repository.storage.interface import Storage
from virtbackup_async.repository.storage.layout import REPOSITORY_FILE
from virtbackup_async.repository.storage.no_core_dumps import refuse_core_dumps
from virtbackup_async.repository.storage.repository_file import (
    loading_extra,
    open_inner,
    refuse_lost,
)

if TYPE_CHECKING:
    from virtbackup_async.repository.keys.secret import Secret
    from virtbackup_async.repository.storage.key import Key
    from virtbackup_async.repository.storage.key_changes import KeyChanges


class SlotFacts(Struct, frozen=True):
    """What everybody can see of a slot.

    Attributes:
        name: of the slot.
        kind: ``passphrase``, ``key-file`` or ``recovery``.
        label: what its maker called it.
        created: when, in UTC.
    """

    name: str
    kind: str
    label: str
    created: str


class SlotList(Struct, frozen=True):
    """The slots of a repository.

    Attributes:
        slots: those that can be read.
        damaged: what is wrong with the others.
        is_sealed: whether only the recovery key opens chunks.
    """

    slots: Sequence[SlotFacts]
    damaged: Sequence[str]
    is_sealed: bool = False


def list_key_slots(location: StorageLocation) -> SlotList:
    """Return the key slots of the repository at a location; needs no key. Blocks.

    Raises:
        NotFoundError: there is no encrypted repository.
        StorageError: it cannot be read.
        CorruptError: the repository file is damaged.
    """
    storage, found = encrypted_at(location)
    with loading_extra():
        from virtbackup_async.repository.storage import key_slots  # noqa: PLC0415 -- see above
    named, damaged = key_slots.list_slots(storage)
    slots = [
        SlotFacts(each.name, each.slot.kind.value, each.slot.label, each.slot.created)
        for each in named
        if each.slot.keys == found.keys
    ]
    return SlotList(
        sorted(slots, key=lambda slot: (slot.created, slot.name)),
        [error.message for error in damaged],
        found.public is not None,
    )


def key_of_file(path: Path) -> "Key":
    """Return the key in a key file. Blocks.

    Raises:
        ConfigError: it is missing, damaged or not private.
    """
    with loading_extra():
        from virtbackup_async.repository.storage.key import Key  # noqa: PLC0415 -- see above
    return Key.of_key_file(path)


def key_of_passphrase(text: str, *, is_new: bool = False) -> "Key":
    """Return the key that a passphrase is.

    Raises:
        ConfigError: it is to be a new one, and too short.
    """
    with loading_extra():
        from virtbackup_async.repository.storage import key  # noqa: PLC0415 -- see above
    if is_new:
        key.check_new_passphrase(text)
    return key.Key.of_passphrase(text)


def key_of_paper(text: str) -> "Key":
    """Return the recovery key that somebody typed from paper.

    Raises:
        ConfigError: it is mistyped.
    """
    with loading_extra():
        from virtbackup_async.repository.storage import key  # noqa: PLC0415 -- see above
    return key.Key.of_paper(text)


def hold_key(key: "Key") -> str:
    """Hold a key in memory; return its name for ``StorageLocation.held_key``. ``drop_key`` it."""
    with loading_extra():
        from virtbackup_async.repository.storage import held_keys  # noqa: PLC0415 -- see above
    return held_keys.hold_key(key)


def drop_key(name: str) -> None:
    """Forget a key that is held, and what was opened with it."""
    with loading_extra():
        from virtbackup_async.repository.storage import held_keys, opened  # noqa: PLC0415 -- see above
    opened.forget_opened(name)
    held_keys.release_key(name)


def new_paper(public_file: Path) -> "Secret":
    """Return a new recovery key, and write its public half into a new file. Blocks.

    Raises:
        ConfigError: the file exists.
        StorageError: it cannot be made.
    """
    with loading_extra():
        from virtbackup_async.repository.keys import recovery  # noqa: PLC0415 -- see above
        from virtbackup_async.repository.keys.secret import new_secret  # noqa: PLC0415
        from virtbackup_async.repository.storage.public_file import write_public_file  # noqa: PLC0415
    refuse_core_dumps()
    paper = new_secret()
    write_public_file(public_file, recovery.public_half(paper))
    return paper


def check_public_key(path: Path) -> None:
    """Check a file with the public half of a recovery key. Blocks.

    Raises:
        ConfigError: it is missing or damaged, or others may change it.
    """
    with loading_extra():
        from virtbackup_async.repository.storage.public_file import read_public_file  # noqa: PLC0415
    read_public_file(path)


def open_key_changes(location: StorageLocation, key: "Key") -> "KeyChanges":
    """Return what changes the keys of the repository at a location. Blocks.

    Raises:
        NotFoundError: there is no encrypted repository.
        ConfigError: the key opens no slot.
        StorageError: it cannot be read.
    """
    storage, found = encrypted_at(location)
    with loading_extra():
        from virtbackup_async.repository.storage import key_changes  # noqa: PLC0415 -- see above
    return key_changes.KeyChanges(storage, key, found)


def written_on_paper(paper: "Secret") -> str:
    """Return a recovery key as it is printed: the one way to read a secret of this package."""
    with loading_extra():
        from virtbackup_async.repository.keys import written_secret  # noqa: PLC0415 -- see above
    return written_secret.write(written_secret.RECOVERY, paper)


def encrypted_at(
    location: StorageLocation, *, hint: str | None = None
) -> tuple[Storage, Description]:
    """Return the storage of an encrypted repository, as it is, and what its file says. Blocks.

    Args:
        location: of the target; its key file is not used.
        hint: what to do if the repository is not encrypted.

    Raises:
        NotFoundError: there is no encrypted repository.
        CorruptError: the repository file is damaged.
        StorageError: the target cannot be read.
    """
    storage = open_inner(location)
    data = storage.read(REPOSITORY_FILE, sealed_json.MAX_BYTES)
    if data is None:
        refuse_lost(storage)
        raise NotFoundError(f"there is no repository: {location}")
    found = description.decode(data, storage.where(REPOSITORY_FILE))
    if found.keys is None:
        raise NotFoundError(f"the repository is not encrypted: {location}", hint=hint)
    return storage, found

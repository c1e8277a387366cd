"""The repository file, which makes a directory a repository: finding, making and repairing it.

The file ``repository`` is made last: a repository that has it is complete. Only a rotation of its
keys changes it.
What only an encrypted one needs is an extra and slow to import, so it is loaded when it is needed.
"""

import secrets
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

from virtbackup_async.errors import (
    REPAIR_HINT,
    ConfigError,
    CorruptError,
    StorageError,
    install_hint,
)
from virtbackup_async.model.storage_location import BUCKET_KINDS, LOCAL, SSH, StorageLocation
from virtbackup_async.repository.format import pack_format, sealed_json
from virtbackup_async.repository.storage import description
from virtbackup_async.repository.storage.interface import Kind, Probing, Storage
from virtbackup_async.repository.storage.layout import (
    DIRECTORY,
    INDEX,
    KEYS,
    LEASES,
    PACKS,
    REPOSITORY_FILE,
    Repository,
    list_packs,
    pack_file,
)
from virtbackup_async.repository.storage.local import LocalStorage
from virtbackup_async.repository.storage.store_requests import OBJECTS

if TYPE_CHECKING:
    from virtbackup_async.repository.storage.key import Key

_SSH: Final = "virtbackup_async.repository.storage.served.ssh"


def _open_local(location: StorageLocation) -> Storage:
    return LocalStorage(location.directory, DIRECTORY)


def _open_objects(location: StorageLocation) -> Storage:
    try:
        module = import_module(OBJECTS)
    except ModuleNotFoundError as error:
        if error.name != "obstore":
            raise
        raise StorageError(
            f"cannot open {location}: object stores need the package obstore",
            hint=install_hint("obstore"),
        ) from error
    opened: Storage = module.shared_object_storage(location)
    return opened


def _open_ssh(location: StorageLocation) -> Storage:
    opened: Storage = import_module(_SSH).open_ssh_storage(location)
    return opened


STORAGES: Final[dict[str, Callable[[StorageLocation], Storage]]] = {
    LOCAL: _open_local,
    SSH: _open_ssh,
    **dict.fromkeys(BUCKET_KINDS, _open_objects),
}
"""Opens a storage of each kind: nothing else knows which kinds there are."""


def open_storage(location: StorageLocation) -> Storage:
    """Return the storage at a location; of an encrypted target, the one that opens its files.

    Raises:
        StorageError: this program has no such kind of storage, or the target has no repository,
            although it is to be encrypted.
        ConfigError: the key file does not fit.
        CorruptError: the repository is damaged.
    """
    if not location.is_encrypted:
        return open_inner(location)
    found = find_repository(location)
    if found is None:
        raise StorageError(f"no repository in {location}")
    return found.storage


def open_inner(location: StorageLocation) -> Storage:
    """Return the storage at a location, as it is: of an encrypted target, what nobody can read.

    Raises:
        StorageError: this program has no such kind of storage.
    """
    if location.kind not in STORAGES:
        raise StorageError(f"unknown kind of storage: {location}")
    return STORAGES[location.kind](location)


def is_append_only(location: StorageLocation) -> bool:
    """Return whether the server of a storage says that this host may only add files. Blocks.

    Raises:
        StorageError: it cannot be reached.
    """
    # Sealed or not, it is the same server.
    return bool(getattr(open_storage(location.without_keys), "append_only", False))


def probe_storage(location: StorageLocation) -> list[str]:
    """Return a sentence for each promise that the storage at a location does not keep. Blocks.

    Raises:
        StorageError: it cannot be used at all.
    """
    storage = open_inner(location)
    return storage.probe() if isinstance(storage, Probing) else []


def find_repository(location: StorageLocation) -> Repository | None:
    """Return the repository at a location, if there is one; ``find_in`` its storage. Blocks.

    An encrypted target without one has no files. So one that has packs has lost its repository
    file, and must not look empty.
    """
    storage = open_inner(location)
    if not location.is_encrypted:
        return find_in(storage)
    with loading_extra():
        from virtbackup_async.repository.storage import opened  # noqa: PLC0415 -- see above
    opening = opened.Opening(location.key_file, location.sealed_for, location.held_key)
    find = partial(find_in, storage, key_of(location), location.sealed_for)
    found = opened.find_once(storage, opening, find)
    if found is None:
        refuse_lost(storage)
    return found


def make_repository(location: StorageLocation) -> Repository:
    """Return the repository at a location, made if need be; ``make_in`` its storage. Blocks."""
    return make_in(open_inner(location), key_of(location), location.sealed_for)


def key_of(location: StorageLocation) -> "Path | Key | None":
    """Return the key, or the key file, that opens a location; None if it is not encrypted."""
    if location.held_key is None:
        return location.key_file
    with loading_extra():
        from virtbackup_async.repository.storage import held_keys  # noqa: PLC0415 -- see above
    return held_keys.held_key(location.held_key)


def repair_repository_file(location: StorageLocation) -> Repository | None:
    """Return the repository at a location, and rewrite its file if that is lost. Blocks.

    The id is in the header of every pack, or in the key slots; the rest is the same in every
    repository.

    Raises:
        NewerVersionError: a newer program made it.
        ConfigError: the key file does not fit.
        CorruptError: the packs do not show which id it had.
        StorageError: it cannot be read or written.
    """
    storage = open_inner(location)
    if not storage.exists(DIRECTORY):
        return None
    where = storage.where(REPOSITORY_FILE)
    try:
        sealed_json.loads(storage.read(REPOSITORY_FILE, sealed_json.MAX_BYTES) or b"", where)
    except CorruptError:
        _rewrite(storage, key_of(location), location.sealed_for)
    make_directories(storage)
    return find_in(storage, key_of(location), location.sealed_for)


def _rewrite(storage: Storage, key: "Path | Key | None", sealed_for: Path | None) -> None:
    found = set(_heads_of_packs(storage))
    is_sealed = _has_key_slots(storage) or any(
        version == pack_format.SEALED_VERSION for version, _ in found
    )
    where = storage.where(REPOSITORY_FILE)
    if is_sealed:
        with loading_extra():
            from virtbackup_async.repository.storage import encrypted  # noqa: PLC0415 -- see above
        encrypted.rewrite_description(storage, _needed(key, where), sealed_for)
        return
    if key is not None:
        raise _not_encrypted(storage)
    if len(found) != 1:
        raise CorruptError(
            f"damaged: {where}, and the packs do not show what its id was",
            hint="Bring the file back from a copy of the target.",
        ) from None
    storage.replace(REPOSITORY_FILE, description.encode_plain(found.pop()[1]))


def find_in(
    storage: Storage, key: "Path | Key | None" = None, sealed_for: Path | None = None
) -> Repository | None:
    """Return the repository in a storage, if there is one. Blocks.

    Args:
        storage: of the target.
        key: the key, or the key file, that opens the repository; None if it is not encrypted.
        sealed_for: the file with the public half of the recovery key for which the repository must
            be sealed; None if that does not matter.

    Raises:
        NewerVersionError: a newer program made it.
        ConfigError: it is encrypted and there is no key, or the key does not fit; or it is not
            encrypted, although there is a key; or it is sealed for another recovery key, or none.
        CorruptError: it is damaged.
        StorageError: it cannot be read.
    """
    data = storage.read(REPOSITORY_FILE, sealed_json.MAX_BYTES)
    if data is None:
        return None
    where = storage.where(REPOSITORY_FILE)
    found = description.decode(data, where)
    if found.keys is not None:
        key = _needed(key, where)
        with loading_extra():
            from virtbackup_async.repository.storage import encrypted  # noqa: PLC0415 -- see above
        return encrypted.open_encrypted(storage, found, key, sealed_for)
    if key is not None:
        raise _not_encrypted(storage)
    return Repository(storage, found.id)


def make_in(
    storage: Storage, key: "Path | Key | None" = None, sealed_for: Path | None = None
) -> Repository:
    """Return the repository in a storage; make it if there is none. Blocks.

    Args:
        storage: of the target.
        key: the key file that opens the repository, or is made with it, or another key of one that
            exists; None if it is not to be encrypted.
        sealed_for: as of ``find_in``; a repository that is made is sealed for it.

    Raises:
        ConfigError: as ``find_in``.
        StorageError: the target is missing, full or not writable.
        CorruptError: the repository is damaged.
    """
    # With a key that does not fit, nothing is written.
    found = None if key is None else find_in(storage, key, sealed_for)
    make_directories(storage)
    found = found or find_in(storage, key, sealed_for) or _make(storage, key, sealed_for)
    storage.keep_reserve()
    return found


def _make(storage: Storage, key: "Path | Key | None", sealed_for: Path | None) -> Repository:
    # With another id, all existing files would belong to no repository.
    refuse_lost(storage)
    # Of two that make a repository, one is first.
    if key is None:
        with suppress(FileExistsError):
            id_ = secrets.token_bytes(description.ID_BYTES)
            storage.put_new(REPOSITORY_FILE, description.encode_plain(id_))
    elif isinstance(key, Path):
        with loading_extra():
            from virtbackup_async.repository.storage import encrypted  # noqa: PLC0415 -- see above
        encrypted.make_encrypted(storage, key, sealed_for)
    else:
        raise ConfigError(
            f"no repository in {storage.where()}, and only a key file makes one",
            hint="Name a key file: 'encryption' in a group.",
        )
    found = find_in(storage, key, sealed_for)
    if found is None:
        raise StorageError(f"repository {storage.where(DIRECTORY)} was removed this moment")
    return found


def refuse_lost(storage: Storage) -> None:
    """Check that a storage without a repository file has never had one. Blocks.

    Raises:
        CorruptError: there are packs.
        StorageError: they cannot be listed.
    """
    if next(list_packs(storage), None) is not None:
        raise CorruptError(f"missing: {storage.where(REPOSITORY_FILE)}", hint=REPAIR_HINT)


def make_directories(storage: Storage) -> None:
    """Make the directories of a repository, as far as they are missing. Blocks."""
    for directory in (DIRECTORY, PACKS, INDEX, LEASES):
        storage.make_directory(directory)


def _heads_of_packs(storage: Storage) -> Iterator[tuple[int, bytes]]:
    with suppress(FileNotFoundError):
        for pack in list_packs(storage):
            with suppress(OSError, CorruptError), closing(storage.open(pack_file(pack))) as file:
                yield pack_format.repository_of(file.read(pack_format.HEAD_BYTES, 0), pack)


def _has_key_slots(storage: Storage) -> bool:
    try:
        return bool(storage.names(KEYS, {Kind.FILE}))
    except FileNotFoundError:
        return False


def _needed(key: "Path | Key | None", where: str) -> "Key":
    if isinstance(key, Path):
        with loading_extra():
            from virtbackup_async.repository.storage.key import Key  # noqa: PLC0415 -- see above
        return Key.of_key_file(key)
    if key is None:
        raise ConfigError(
            f"repository is encrypted: {where}",
            hint="Name its key file: 'encryption' in a group, --key-file with --target.",
        )
    return key


def _not_encrypted(storage: Storage) -> ConfigError:
    return ConfigError(
        f"repository is not encrypted: {storage.where(DIRECTORY)}",
        hint="Take 'encryption' out of the group, or name another target. If the repository was "
        "encrypted, somebody exchanged it.",
    )


@contextmanager
def loading_extra() -> Iterator[None]:
    """Say which extra is missing, if a module that needs it cannot be loaded in the block."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "cryptography":
            raise
        raise ConfigError(
            "encryption needs the Python package cryptography",
            hint=install_hint("cryptography segno"),
        ) from error

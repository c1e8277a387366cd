"""The repository file, which makes a directory a repository: finding, making and repairing it.

The file ``repository`` is made last and never changes: a repository that has it is complete.
"""

import secrets
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from importlib import import_module
from typing import Final

from virtbackup_async.errors import REPAIR_HINT, CorruptError, NewerVersionError, StorageError
from virtbackup_async.model.storage_location import LOCAL, StorageLocation
from virtbackup_async.repository.format import pack_format, sealed_json
from virtbackup_async.repository.format.chunks import CHUNK_BYTES
from virtbackup_async.repository.storage.interface import Storage
from virtbackup_async.repository.storage.layout import (
    DIRECTORY,
    INDEX,
    LEASES,
    PACKS,
    REPOSITORY_FILE,
    Repository,
    list_packs,
    pack_file,
)
from virtbackup_async.repository.storage.local import LocalStorage

VERSION: Final = 1
_ID_BYTES: Final = 16
_OBJECTS: Final = "virtbackup_async.repository.storage.objects.connecting"


def _open_local(location: StorageLocation) -> Storage:
    return LocalStorage(location.directory, DIRECTORY)


def _open_objects(location: StorageLocation) -> Storage:
    try:
        module = import_module(_OBJECTS)
    except ModuleNotFoundError as error:
        if error.name != "obstore":
            raise
        raise StorageError(
            f"cannot open {location}: object stores need the package obstore",
            hint="Run `pip install 'virtbackup-async[s3]'`.",
        ) from error
    opened: Storage = module.open_object_storage(location)
    return opened


STORAGES: Final[dict[str, Callable[[StorageLocation], Storage]]] = {
    LOCAL: _open_local,
    **dict.fromkeys(("s3", "gs", "az"), _open_objects),
}
"""Opens a storage of each kind: nothing else knows which kinds there are."""


def open_storage(location: StorageLocation) -> Storage:
    """Return the storage at a location.

    Raises:
        StorageError: this program has no such kind of storage.
    """
    if location.kind not in STORAGES:
        raise StorageError(f"unknown kind of storage: {location}")
    return STORAGES[location.kind](location)


def find_repository(location: StorageLocation) -> Repository | None:
    """Return the repository at a location, if there is one; ``find_in`` its storage. Blocks."""
    return find_in(open_storage(location))


def make_repository(location: StorageLocation) -> Repository:
    """Return the repository at a location, made if need be; ``make_in`` its storage. Blocks."""
    return make_in(open_storage(location))


def repair_repository_file(location: StorageLocation) -> Repository | None:
    """Return the repository at a location, and rewrite its file if that is lost. Blocks.

    The id is in the header of every pack; the rest is the same in every repository.

    Raises:
        NewerVersionError: a newer program made it.
        CorruptError: the packs do not show which id it had.
        StorageError: it cannot be read or written.
    """
    storage = open_storage(location)
    if not storage.exists(DIRECTORY):
        return None
    where = storage.where(REPOSITORY_FILE)
    try:
        sealed_json.loads(storage.read(REPOSITORY_FILE, sealed_json.MAX_BYTES) or b"", where)
    except CorruptError:
        ids = set(_ids_in_packs(storage))
        if len(ids) != 1:
            raise CorruptError(
                f"damaged: {where}, and the packs do not show what its id was",
                hint="Bring the file back from a copy of the target.",
            ) from None
        storage.replace(REPOSITORY_FILE, sealed_json.dumps(_description(ids.pop())))
    _make_directories(storage)
    return find_in(storage)


def find_in(storage: Storage) -> Repository | None:
    """Return the repository in a storage, if there is one. Blocks.

    Raises:
        NewerVersionError: a newer program made it.
        CorruptError: it is damaged.
        StorageError: it cannot be read.
    """
    data = storage.read(REPOSITORY_FILE, sealed_json.MAX_BYTES)
    if data is None:
        return None
    return Repository(storage, _parse(data, storage.where(REPOSITORY_FILE)))


def make_in(storage: Storage) -> Repository:
    """Return the repository in a storage; make it if there is none. Blocks.

    Raises:
        StorageError: the target is missing, full or not writable.
        CorruptError: the repository is damaged.
    """
    _make_directories(storage)
    found = find_in(storage) or _make(storage)
    storage.keep_reserve()
    return found


def _make(storage: Storage) -> Repository:
    if next(list_packs(storage), None) is not None:
        # With another id, all existing files would belong to no repository.
        raise CorruptError(f"missing: {storage.where(REPOSITORY_FILE)}", hint=REPAIR_HINT)
    # Of two that make a repository, one is first.
    with suppress(FileExistsError):
        id_ = secrets.token_bytes(_ID_BYTES)
        storage.put_new(REPOSITORY_FILE, sealed_json.dumps(_description(id_)))
    found = find_in(storage)
    if found is None:
        raise StorageError(f"repository {storage.where(DIRECTORY)} was removed this moment")
    return found


def _make_directories(storage: Storage) -> None:
    for directory in (DIRECTORY, PACKS, INDEX, LEASES):
        storage.make_directory(directory)


def _ids_in_packs(storage: Storage) -> Iterator[bytes]:
    with suppress(FileNotFoundError):
        for pack in list_packs(storage):
            with suppress(OSError, CorruptError), closing(storage.open(pack_file(pack))) as file:
                yield pack_format.repository_of(file.read(pack_format.HEAD_BYTES, 0), pack)


def _description(id_: bytes) -> dict[str, object]:
    return {
        "format": "virtbackup repository",
        "version": VERSION,
        "id": id_.hex(),
        "chunk_bytes": CHUNK_BYTES,
        "digest": "blake3",
        "encryption": None,
    }


def _in_words(unknown: dict[str, object]) -> str:
    words = [f"its {key} is {value!r:.40}, which is not known" for key, value in unknown.items()]
    return ", ".join(words).replace("_bytes", " size") or "it is encrypted"


def _parse(data: bytes, where: str) -> bytes:
    try:
        value = sealed_json.loads(data, where)
    except CorruptError as error:
        raise error.reworded(error.message, REPAIR_HINT) from error
    expected = {"version": VERSION, "chunk_bytes": CHUNK_BYTES, "digest": "blake3"}
    unknown = {key: value.get(key) for key in expected if value.get(key) != expected[key]}
    if unknown or value.get("encryption") is not None:
        raise NewerVersionError(f"repository cannot be read: {where}: {_in_words(unknown)}")
    try:
        id_ = bytes.fromhex(str(value.get("id")))
    except ValueError:
        id_ = b""
    if len(id_) != _ID_BYTES:
        raise CorruptError(f"damaged: {where}: no id")
    return id_

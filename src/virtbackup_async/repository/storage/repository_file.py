"""What a repository is, and making one.

The file ``repository`` is the last that is made, and never changes: who sees it sees a repository.
"""

import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from virtbackup_async.errors import CorruptError, NewerVersionError, StorageError
from virtbackup_async.files.closing import close
from virtbackup_async.files.refusals import storage_error
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.repository.format import pack_format, sealed_json
from virtbackup_async.repository.format.chunks import CHUNK_BYTES
from virtbackup_async.repository.storage.layout import (
    DIRECTORY,
    Repository,
    list_packs,
    read_exactly,
)
from virtbackup_async.repository.storage.reading import REPAIR_HINT, with_repair_hint
from virtbackup_async.repository.storage.reserve import keep_reserve

VERSION: Final = 1
_FILE: Final = "repository"
_ID_BYTES: Final = 16


def find_repository(target: Path) -> Repository | None:
    """Return the repository of a target, if it has one. Blocks.

    Raises:
        NewerVersionError: a newer program made it.
        CorruptError: it is damaged.
        StorageError: it cannot be read.
    """
    file = _file(target)
    data = file.read(sealed_json.MAX_BYTES)
    return None if data is None else Repository(file.parent.path, _parse(data, file.path))


def make_repository(target: Path) -> Repository:
    """Return the repository of a target, and make it if there is none. Blocks.

    Raises:
        StorageError: the target is missing, full or not writable.
        CorruptError: it is damaged.
    """
    file = _file(target)
    _make_directories(file.parent)
    found = find_repository(target)
    if found is None:
        found = _make(file, target)
    keep_reserve(found)
    return found


def _make(file: TargetPath, target: Path) -> Repository:
    if next(list_packs(Repository(file.parent.path, b"")), None) is not None:
        # Another id would make all that is there belong to nobody.
        raise CorruptError(f"missing: {file}", hint=REPAIR_HINT)
    _describe(file)
    found = find_repository(target)
    if found is None:
        raise StorageError(f"repository {file.parent} was removed this moment")
    return found


def repair_repository_file(target: Path) -> Repository | None:
    """Return the repository of a target, and write anew what it is if that is lost. Blocks.

    Its id is in the head of every pack; all else is the same in every repository.

    Raises:
        NewerVersionError: a newer program made it.
        CorruptError: the packs do not tell.
        StorageError: it cannot be read or written.
    """
    file = _file(target)
    try:
        if not file.parent.exists():
            return None
    except OSError as error:
        raise storage_error("read", file.parent.path, error) from error
    try:
        sealed_json.loads(file.read(sealed_json.MAX_BYTES) or b"", file.path)
    except CorruptError:
        ids = set(_ids_in_packs(file.parent.path))
        if len(ids) != 1:
            raise CorruptError(
                f"damaged: {file}, and the packs do not say what its id was",
                hint="Bring the file back from a copy of the target.",
            ) from None
        file.replace(sealed_json.dumps(_description(ids.pop())))
    _make_directories(file.parent)
    return find_repository(target)


def _file(target: Path) -> TargetPath:
    return TargetPath(target) / DIRECTORY / _FILE


def _make_directories(root: TargetPath) -> None:
    for directory in (root, root / "packs", root / "index", root / "leases"):
        directory.make_directory()


def _ids_in_packs(path: Path) -> Iterator[bytes]:
    repository = Repository(path, b"")
    with suppress(FileNotFoundError):
        for pack in list_packs(repository):
            with suppress(OSError, CorruptError):
                fd = repository.pack(pack).open_file()
                try:
                    head = read_exactly(fd, pack_format.HEAD_BYTES, 0)
                finally:
                    close(fd)
                yield pack_format.repository_of(head, pack)


def _description(id_: bytes) -> dict[str, object]:
    return {
        "format": "virtbackup repository",
        "version": VERSION,
        "id": id_.hex(),
        "chunk_bytes": CHUNK_BYTES,
        "digest": "blake3",
        "encryption": None,
    }


def _describe(file: TargetPath) -> None:
    part = file.parent.temporary()
    try:
        try:
            part.write_new(sealed_json.dumps(_description(secrets.token_bytes(_ID_BYTES))))
            # Of two who make a repository, one is first.
            with suppress(FileExistsError):
                part.take_free_name(file.name)
        finally:
            part.drop()
    except OSError as error:
        raise storage_error("write", file.path, error) from error
    file.parent.sync_names()


def _parse(data: bytes, path: Path) -> bytes:
    try:
        value = sealed_json.loads(data, path)
    except CorruptError as error:
        raise with_repair_hint(error) from error
    expected = {"version": VERSION, "chunk_bytes": CHUNK_BYTES, "digest": "blake3"}
    unknown = {key: value.get(key) for key in expected if value.get(key) != expected[key]}
    if unknown or value.get("encryption") is not None:
        raise NewerVersionError(
            f"repository cannot be read: {path}: {unknown or 'it is encrypted'}"
        )
    try:
        id_ = bytes.fromhex(str(value.get("id")))
    except ValueError:
        id_ = b""
    if len(id_) != _ID_BYTES:
        raise CorruptError(f"damaged: {path}: no id")
    return id_

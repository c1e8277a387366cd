"""What a repository is, and making one.

The file ``repository`` is the last that is made, and never changes: who sees it sees a repository.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from virtbackup_async.errors import CorruptError, StorageError
from virtbackup_async.images.durable import (
    replace_file,
    storage_error,
    sync_file,
    temporary_path,
)
from virtbackup_async.repository import pack_format, sealed_json
from virtbackup_async.repository.chunks import CHUNK_BYTES
from virtbackup_async.repository.damage import REPAIR_HINT, mendable
from virtbackup_async.repository.layout import (
    DIRECTORY,
    Repository,
    close,
    create_file,
    list_packs,
    make_directory,
    open_file,
    read_exactly,
    sync,
    write_all,
)

VERSION: Final = 1
_FILE: Final = "repository"
_ID_BYTES: Final = 16


def find_repository(target: Path) -> Repository | None:
    """Return the repository of a target, if it has one. Blocks.

    Raises:
        CorruptError: it is damaged, or of a newer program.
        StorageError: it cannot be read.
    """
    path = target / DIRECTORY
    try:
        data = _read(path / _FILE)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error("read", path / _FILE, error) from error
    return Repository(path, _parse(data, path / _FILE))


def make_repository(target: Path) -> Repository:
    """Return the repository of a target, and make it if there is none. Blocks.

    Raises:
        StorageError: the target is missing, full or not writable.
        CorruptError: it is damaged.
    """
    path = target / DIRECTORY
    _make_directories(path)
    if not (path / _FILE).exists():
        if next(list_packs(Repository(path, b"")), None) is not None:
            # Another id would make all that is there belong to nobody.
            raise CorruptError(f"missing: {path / _FILE}", hint=REPAIR_HINT)
        _describe(path)
    found = find_repository(target)
    if found is None:
        raise StorageError(f"repository {path} was removed this moment")
    return found


def mend_repository(target: Path) -> Repository | None:
    """Return the repository of a target, and write anew what it is if that is lost. Blocks.

    Its id is in the head of every pack; all else is the same in every repository.

    Raises:
        CorruptError: the packs do not tell, or it is of a newer program.
        StorageError: it cannot be read or written.
    """
    path = target / DIRECTORY
    file = path / _FILE
    try:
        sealed_json.loads(_read(file), file)
    except (FileNotFoundError, CorruptError):
        if not path.is_dir():
            return None
        ids = set(_ids_in_packs(path))
        if len(ids) != 1:
            raise CorruptError(
                f"damaged: {file}, and the packs do not say what its id was",
                hint="Bring the file back from a copy of the target.",
            ) from None
        replace_file(file, sealed_json.dumps(_description(ids.pop())))
    except OSError as error:
        raise storage_error("read", file, error) from error
    _make_directories(path)
    return find_repository(target)


def _make_directories(path: Path) -> None:
    for directory in (path, path / "packs", path / "index", path / "leases"):
        make_directory(directory)


def _ids_in_packs(path: Path) -> Iterator[bytes]:
    repository = Repository(path, b"")
    with suppress(FileNotFoundError):
        for pack in list_packs(repository):
            with suppress(OSError, CorruptError):
                fd = open_file(repository.pack_path(pack))
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


def _describe(path: Path) -> None:
    value = _description(secrets.token_bytes(_ID_BYTES))
    part = temporary_path(path)
    fd = create_file(part)
    try:
        try:
            write_all(fd, sealed_json.dumps(value), part)
            sync(fd, part)
        finally:
            close(fd)
        # A link takes a free name only: of two who make a repository, one is first.
        with suppress(FileExistsError):
            os.link(part, path / _FILE)
        sync_file(path)
    except OSError as error:
        raise storage_error("write", path / _FILE, error) from error
    finally:
        part.unlink(missing_ok=True)


def _read(path: Path) -> bytes:
    fd = open_file(path)
    try:
        return os.read(fd, sealed_json.MAX_BYTES)
    finally:
        close(fd)


def _parse(data: bytes, path: Path) -> bytes:
    try:
        value = sealed_json.loads(data, path)
    except CorruptError as error:
        raise mendable(error) from error
    expected = {"version": VERSION, "chunk_bytes": CHUNK_BYTES, "digest": "blake3"}
    unknown = {key: value.get(key) for key in expected if value.get(key) != expected[key]}
    if unknown or value.get("encryption") is not None:
        raise CorruptError(
            f"repository cannot be read: {path}: {unknown or 'it is encrypted'}",
            hint="Use a newer program.",
        )
    try:
        id_ = bytes.fromhex(str(value.get("id")))
    except ValueError:
        id_ = b""
    if len(id_) != _ID_BYTES:
        raise CorruptError(f"damaged: {path}: no id")
    return id_

"""What a repository is, and making one.

The file ``repository`` is the last that is made, and never changes: who sees it sees a repository.
"""

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from virtbackup_async.errors import CorruptError, StorageError
from virtbackup_async.images.durable import storage_error, sync_file, temporary_path
from virtbackup_async.repository import sealed_json
from virtbackup_async.repository.chunks import CHUNK_BYTES
from virtbackup_async.repository.layout import (
    DIRECTORY,
    Repository,
    create_file,
    make_directory,
    open_file,
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
    """
    path = target / DIRECTORY
    for directory in (path, path / "packs", path / "index", path / "leases"):
        make_directory(directory)
    if not (path / _FILE).exists():
        _describe(path)
    found = find_repository(target)
    if found is None:
        raise StorageError(f"repository {path} was removed this moment")
    return found


def _describe(path: Path) -> None:
    value = {
        "format": "virtbackup repository",
        "version": VERSION,
        "id": secrets.token_hex(_ID_BYTES),
        "chunk_bytes": CHUNK_BYTES,
        "digest": "blake3",
        "encryption": None,
    }
    part = temporary_path(path)
    fd = create_file(part)
    try:
        try:
            write_all(fd, sealed_json.dumps(value), part)
            sync(fd, part)
        finally:
            os.close(fd)
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
        os.close(fd)


def _parse(data: bytes, path: Path) -> bytes:
    value = sealed_json.loads(data, path)
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

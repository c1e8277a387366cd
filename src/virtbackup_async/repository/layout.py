"""Where the files of a repository lie.

::

    TARGET/.virtbackup-repository/
    |-- repository                   what it is: id, version, length of chunks
    |-- condemned                    packs that no writer may count on any more (see sweep.py)
    |-- damaged                      maps that cannot be mended (see known_damage.py)
    |-- packs/1f/1f...0007.pack      chunks; the name's first 24 digits are its writer's
    |-- index/1f...-7.index          where they are, a segment for some of them
    `-- leases/1f...                 a writer that lives, or the sweeper

All modules of this layer take their paths here. Names that begin with a dot are temporary.
"""

import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from msgspec import Struct

from virtbackup_async.errors import CorruptError, StorageError
from virtbackup_async.images.durable import (
    FILE_MODE,
    storage_error,
    sync_names,
)

DIRECTORY: Final = ".virtbackup-repository"
TOKEN_BYTES: Final = 12
_PACK_SUFFIX: Final = ".pack"
_INDEX_SUFFIX: Final = ".index"
_DIRECTORY_MODE: Final = 0o700


class Repository(Struct, frozen=True):
    """A repository that is there: its directory, and the id that all of its files carry."""

    path: Path
    id: bytes

    @property
    def packs(self) -> Path:
        return self.path / "packs"

    @property
    def index(self) -> Path:
        return self.path / "index"

    @property
    def leases(self) -> Path:
        return self.path / "leases"

    @property
    def condemned(self) -> Path:
        return self.path / "condemned"

    @property
    def damaged(self) -> Path:
        return self.path / "damaged"

    def pack_path(self, pack: bytes) -> Path:
        """Return the path of a pack."""
        name = pack.hex()
        return self.packs / name[:2] / (name + _PACK_SUFFIX)

    def segment_path(self, token: str, number: int) -> Path:
        """Return the path of a writer's segment of the index."""
        return self.index / f"{token}-{number}{_INDEX_SUFFIX}"


def new_token() -> str:
    """Return a name for a writer: 24 digits."""
    return secrets.token_hex(TOKEN_BYTES)


def pack_name(token: str, number: int) -> bytes:
    """Return the name of a writer's pack: 16 bytes."""
    return bytes.fromhex(token) + number.to_bytes(4, "big")


def token_of(pack: bytes) -> str:
    """Return the writer of a pack."""
    return pack[:TOKEN_BYTES].hex()


def segment_token(path: Path) -> str:
    """Return the writer of a segment."""
    return path.name.partition("-")[0]


def list_packs(repository: Repository) -> Iterator[bytes]:
    """Give the names of all packs that are there; none if their directory is lost. Blocks."""
    for directory in _entries(repository.packs):
        for path in sorted(directory.iterdir()):
            with suppress(ValueError):
                pack = bytes.fromhex(path.name.removesuffix(_PACK_SUFFIX))
                if repository.pack_path(pack) == path:
                    yield pack


def pack_sizes(repository: Repository, packs: Iterable[bytes]) -> dict[bytes, int]:
    """Return the lengths in bytes of those packs that are there. Blocks."""
    sizes = {}
    for pack in packs:
        with suppress(FileNotFoundError):  # swept this moment
            sizes[pack] = repository.pack_path(pack).lstat().st_size
    return sizes


def list_segments(repository: Repository) -> list[Path]:
    """Return the paths of all segments of the index; none if it is lost. Blocks."""
    paths = _entries(repository.index)
    return [path for path in paths if path.suffix == _INDEX_SUFFIX and path.name[0] != "."]


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except FileNotFoundError:
        return []


def make_directory(path: Path) -> None:
    """Make a private directory, durably, if it is not there. Blocks.

    Raises:
        StorageError: its parent is missing or not writable.
    """
    try:
        path.mkdir(mode=_DIRECTORY_MODE)
    except FileExistsError:
        return
    except OSError as error:
        raise storage_error("create", path, error) from error
    try:
        sync_names(path.parent)
    except StorageError:
        # Whoever finds it would take its name for durable.
        with suppress(OSError):
            path.rmdir()
        raise


def create_file(path: Path) -> int:
    """Return the descriptor of a new private file, open for reading and writing. Blocks."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags, FILE_MODE)
    except OSError as error:
        raise storage_error("create", path, error) from error


def open_file(path: Path) -> int:
    """Return the descriptor of a regular file, open for reading; links are not followed. Blocks.

    Raises:
        FileNotFoundError: it is not there.
        OSError: it cannot be opened.
    """
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)


def read_small(path: Path, max_bytes: int) -> bytes | None:
    """Return the content of a small file; None if it is not there. Blocks.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        with os.fdopen(open_file(path), "rb") as file:
            return file.read(max_bytes)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error("read", path, error) from error


def read_exactly(fd: int, length_bytes: int, offset: int) -> bytes:
    """Return that many bytes of a file. Blocks.

    Raises:
        CorruptError: it ends before.
        OSError: it cannot be read.
    """
    data = os.pread(fd, length_bytes, offset)
    while 0 < len(data) < length_bytes:
        more = os.pread(fd, length_bytes - len(data), offset + len(data))
        if not more:
            break
        data += more
    if len(data) < length_bytes:
        raise CorruptError("it is cut off")
    return data


def write_all(fd: int, data: bytes | bytearray, path: Path) -> None:
    """Append all of ``data``. Blocks.

    Raises:
        StorageError: the target is full, or failed.
    """
    try:
        with memoryview(data) as rest:
            written = 0
            while written < len(rest):
                written += os.write(fd, rest[written:])
    except OSError as error:
        raise storage_error("write", path, error) from error


def close(fd: int) -> None:
    """Close a descriptor. What counts was synced or read before: an error says nothing new."""
    with suppress(OSError):
        os.close(fd)


def sync(fd: int, path: Path) -> None:
    """Make a file's content durable. Blocks."""
    try:
        os.fdatasync(fd)
    except OSError as error:
        raise storage_error("sync", path, error) from error

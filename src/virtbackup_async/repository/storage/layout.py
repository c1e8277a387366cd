"""Where the files of a repository lie.

::

    TARGET/.virtbackup-repository/
    |-- repository                   what it is: id, version, length of chunks
    |-- condemned                    packs that no writer may count on any more (see prune.py)
    |-- damaged                      maps that cannot be mended (see known_damage.py)
    |-- packs/1f/1f...0007.pack      chunks; the name's first 24 digits are its writer's
    |-- index/1f...-7.index          where they are, a segment for some of them
    `-- leases/1f...                 a writer that lives, or the pruner

All modules of this layer take their paths here, and reach what is there without following a link
(``files``). Names that begin with a dot are temporary.
"""

import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Final

from msgspec import Struct

from virtbackup_async.errors import CorruptError
from virtbackup_async.files.refusals import storage_error
from virtbackup_async.files.target_path import TargetPath

DIRECTORY: Final = ".virtbackup-repository"
TOKEN_BYTES: Final = 12
_PACK_SUFFIX: Final = ".pack"
_INDEX_SUFFIX: Final = ".index"
_PREFIX: Final = re.compile("[0-9a-f]{2}")
_PACK: Final = re.compile(r"[0-9a-f]{32}\.pack")


class Repository(Struct, frozen=True):
    """A repository that is there: its directory, and the id that all of its files carry."""

    path: Path
    id: bytes

    @property
    def root(self) -> TargetPath:
        return TargetPath.of(self.path, 1)

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
    def pending_deletion(self) -> Path:
        return self.path / "condemned"

    @property
    def damaged(self) -> Path:
        return self.path / "damaged"

    def inside(self, path: Path) -> TargetPath:
        """Return one of its paths as what is reached without following a link."""
        place = self.root
        for step in path.relative_to(self.path).parts:
            place /= step
        return place

    def pack(self, pack: bytes) -> TargetPath:
        """Return where a pack is."""
        name = pack.hex()
        return self.root / "packs" / name[:2] / (name + _PACK_SUFFIX)

    def pack_path(self, pack: bytes) -> Path:
        """Return the path of a pack."""
        return self.pack(pack).path

    def segment_path(self, token: str, number: int) -> Path:
        """Return the path of a writer's segment of the index."""
        return self.index / f"{token}-{number}{_INDEX_SUFFIX}"


class MapFile(Struct, frozen=True):
    """A map in a target, as whoever names the maps lists it.

    Attributes:
        path: where it is.
        disk: the same for all maps of one disk, and for no other. In a list the maps of a disk
            follow each other by date: what they have in common is looked up once.
    """

    path: Path
    disk: str


ListMaps = Callable[[], Sequence[MapFile]]
"""Lists all maps of a target. Blocks. Raises StorageError if a directory cannot be read."""


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
    """Give the names of all packs that are there; none if their directory is lost. Blocks.

    Raises:
        StorageError: a directory cannot be read.
    """
    directory = repository.root / "packs"
    for prefix in filter(_PREFIX.fullmatch, _names(directory, TargetPath.directory_names)):
        for name in _names(directory / prefix, TargetPath.file_names):
            if name.startswith(prefix) and _PACK.fullmatch(name):
                yield bytes.fromhex(name.removesuffix(_PACK_SUFFIX))


def pack_sizes(repository: Repository, packs: Iterable[bytes]) -> dict[bytes, int]:
    """Return the lengths in bytes of those packs that are there. Blocks.

    Raises:
        StorageError: a directory cannot be read.
    """
    sizes = {}
    for _, group in groupby(sorted(packs), key=lambda pack: pack[:1]):
        together = list(group)
        directory = repository.pack(together[0]).parent
        try:
            with directory.entered() as fd:
                for pack in together:
                    with suppress(FileNotFoundError):  # pruned this moment
                        name = repository.pack(pack).name
                        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                        if stat.S_ISREG(status.st_mode):
                            sizes[pack] = status.st_size
        except FileNotFoundError:
            continue
        except OSError as error:
            raise storage_error("read", directory.path, error) from error
    return sizes


def list_segments(repository: Repository) -> list[Path]:
    """Return the paths of all segments of the index; none if it is lost. Blocks.

    Raises:
        StorageError: the directory cannot be read.
    """
    # Whatever else has such a name is told as a damaged one when it is opened.
    names = _names(repository.root / "index", lambda directory: directory.names(_is_segment))
    return [repository.index / name for name in names]


def _is_segment(entry: os.DirEntry[str]) -> bool:
    return entry.name.endswith(_INDEX_SUFFIX) and entry.name[0] != "."


def _names(directory: TargetPath, list_names: Callable[[TargetPath], list[str]]) -> list[str]:
    try:
        return list_names(directory)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise storage_error("read", directory.path, error) from error


def map_file(path: Path) -> TargetPath:
    """Return a map, which lies in the directory of a domain, as what is reached without links."""
    return TargetPath.of(path, 2)


def pack_file(path: Path) -> TargetPath:
    """Return a pack as what is reached without following a link."""
    return TargetPath.of(path, 4)


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


def sync(fd: int, path: Path) -> None:
    """Make a file's content durable. Blocks."""
    try:
        os.fdatasync(fd)
    except OSError as error:
        raise storage_error("sync", path, error) from error

"""Copies on this host of files in an object store that never change: segments, maps, definitions.

::

    /var/cache/virtbackup/<store>/<file>      content, then its BLAKE3

A copy is named by the file and its tag in the store, so another file of the same name is another
copy. It is kept only if the tag, or the checksum at its end, proves the content, and it is hashed
each time it is opened: one that is damaged counts as missing. All of it may be removed at any time.
The directory is this user's alone; nothing of another user is read. What was not used for longest
is removed first, as soon as all copies of all stores take more than a bound.
"""

import errno
import hashlib
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from blake3 import blake3

from virtbackup_async.errors import CorruptError
from virtbackup_async.files.refusals import close
from virtbackup_async.repository.storage.objects.answers import Meta, plain_tag

VARIABLE: Final = "VIRTBACKUP_CACHE_DIRECTORY"
MOST_BYTES: Final = 4 << 30
_SYSTEM: Final = Path("/var/cache/virtbackup")
_DIGEST_BYTES: Final = 32
_PIECE_BYTES: Final = 1 << 20
_MD5: Final = re.compile("[0-9a-f]{32}")
_KEPT_OF_MOST: Final = 0.9
_PART: Final = ".part-"


class CopiedFile:
    """A ``StoredFile``: a local copy; it is not changed by what happens to the file."""

    def __init__(self, where: str, fd: int, size_bytes: int) -> None:
        self.where = where
        self.size_bytes = size_bytes
        self._fd = fd

    def read(self, length_bytes: int, offset: int) -> bytes:
        data = self.read_up_to(length_bytes, offset)
        if len(data) < length_bytes:
            raise CorruptError("it is cut off")
        return data

    def read_up_to(self, length_bytes: int, offset: int) -> bytes:
        length = min(length_bytes, self.size_bytes - offset)
        data = b""
        while len(data) < length:
            more = os.pread(self._fd, length - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    read_once = read

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            close(fd)


class Cache:
    """The copies of one store's files; several processes may use them at once. All calls block."""

    def __init__(self, store: str, directory: Path | None = None) -> None:
        self._root = directory or cache_directory()
        self._directory = self._root / blake3(store.encode()).hexdigest(length=16)
        self._new_bytes = MOST_BYTES

    def open(self, name: str, tag: str, where: str) -> CopiedFile | None:
        """Open the copy of a file; None if there is no good one."""
        try:
            fd = os.open(self._path(name, tag), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        size_bytes = os.fstat(fd).st_size - _DIGEST_BYTES
        copied = CopiedFile(where, fd, size_bytes)
        try:
            if size_bytes >= 0 and _digest_of(fd, size_bytes) == os.pread(
                fd, _DIGEST_BYTES, size_bytes
            ):
                os.utime(fd)
                return copied
        except OSError:
            pass
        copied.close()
        return None

    def read(self, name: str, tag: str) -> bytes | None:
        """Return the content of the copy of a small file; None if there is no good one."""
        copied = self.open(name, tag, name)
        if copied is None:
            return None
        try:
            return copied.read(copied.size_bytes, 0)
        finally:
            copied.close()

    def new_file(self) -> BinaryIO:
        """Return a file for a copy: unnamed, and empty.

        Raises:
            OSError: none can be made.
        """
        directory = self._directory if self._is_usable() else None
        return tempfile.TemporaryFile(dir=directory)

    def opened(self, file: BinaryIO, where: str, meta: Meta) -> CopiedFile:
        """Return a file for reading that ``new_file`` gave; the caller may close that."""
        return CopiedFile(where, os.dup(file.fileno()), meta.size_bytes)

    def keep(self, name: str, tag: str, file: BinaryIO, meta: Meta) -> None:
        """Keep a copy, if its content is proven; no errors, as it may be fetched again."""
        with suppress(OSError):
            if self._is_usable() and _is_proven(file.fileno(), meta):
                self._keep(self._path(name, tag), file, meta.size_bytes)

    def write(self, name: str, tag: str, data: bytes, meta: Meta) -> None:
        """Keep a copy of a small file, if its content is proven; no errors."""
        with suppress(OSError), self.new_file() as file:
            file.write(data)
            file.flush()
            self.keep(name, tag, file, meta)

    def _keep(self, path: Path, file: BinaryIO, size_bytes: int) -> None:
        part = path.parent / f"{_PART}{secrets.token_hex(8)}"
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            digest = _digest_of(file.fileno(), size_bytes)
            for piece in _pieces(file.fileno(), size_bytes):
                _write(fd, piece)
            _write(fd, digest)
            part.rename(path)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise
        finally:
            close(fd)
        self._new_bytes += size_bytes
        if self._new_bytes > MOST_BYTES * (1 - _KEPT_OF_MOST):
            self._new_bytes = 0
            _trim(self._root)

    def _path(self, name: str, tag: str) -> Path:
        return self._directory / blake3(f"{name}\0{tag}".encode()).hexdigest()

    def _is_usable(self) -> bool:
        try:
            return all(map(_is_own, (self._root, self._directory)))
        except OSError:
            return False


def cache_directory() -> Path:
    """Return the directory for copies: the system's for root, else the user's."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    if os.geteuid() == 0:
        return _SYSTEM
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "virtbackup"


def _is_own(directory: Path) -> bool:
    """Make a directory if it is missing; return whether it is this user's alone."""
    with suppress(FileExistsError):
        directory.mkdir(mode=0o700, parents=True)
    status = directory.lstat()
    is_alone = status.st_uid == os.geteuid() and not status.st_mode & 0o077
    return stat.S_ISDIR(status.st_mode) and is_alone


def _is_proven(fd: int, meta: Meta) -> bool:
    """Return whether a content is that of the store: by its MD5, or by the checksum at its end."""
    tag = plain_tag(meta.e_tag)
    if _MD5.fullmatch(tag):
        md5 = hashlib.md5(usedforsecurity=False)
        for piece in _pieces(fd, meta.size_bytes):
            md5.update(piece)
        if md5.hexdigest() == tag:
            return True
    end = meta.size_bytes - _DIGEST_BYTES
    return end > 0 and _digest_of(fd, end) == os.pread(fd, _DIGEST_BYTES, end)


def _digest_of(fd: int, length: int) -> bytes:
    digest = blake3()
    for piece in _pieces(fd, length):
        digest.update(piece)
    return digest.digest()


def _pieces(fd: int, length: int) -> Iterator[bytes]:
    at = 0
    while at < length:
        piece = os.pread(fd, min(_PIECE_BYTES, length - at), at)
        if not piece:
            raise OSError(errno.EIO, "it is cut off")
        yield piece
        at += len(piece)


def _write(fd: int, data: bytes) -> None:
    with memoryview(data) as rest:
        written = 0
        while written < len(rest):
            written += os.write(fd, rest[written:])


def _trim(root: Path) -> None:
    """Remove the copies that were not used for longest, until the rest is below the bound."""
    found = []
    for path in root.glob("*/*"):
        with suppress(OSError):
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                found.append((status.st_mtime, status.st_size, path))
    total = sum(size for _, size, _ in found)
    if total <= MOST_BYTES:
        return
    for _, size_bytes, path in sorted(found):
        with suppress(OSError):
            path.unlink()
        total -= size_bytes
        if total <= MOST_BYTES * _KEPT_OF_MOST:
            return

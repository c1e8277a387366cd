"""Packages that may be damaged or hostile: opened safely, and their errors said as one of ours."""

import lzma
import os
import struct
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from zstandard import ZstdError

from virtbackup_async.errors import CorruptError
from virtbackup_async.files.refusals import is_of_the_host, storage_error
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.images.digest import LengthError

# Headers are numbers in text: a hostile one surfaces as whatever the conversion stumbles over.
_DAMAGE = (
    OSError, EOFError, ValueError, IndexError, OverflowError, MemoryError, struct.error,
    tarfile.TarError, zlib.error, lzma.LZMAError, ZstdError,
)  # fmt: skip


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what goes wrong in the block into a ``CorruptError`` that names the package.

    Raises:
        CorruptError: it is missing or damaged.
        StorageError: it cannot be read now, which says nothing of the package: ``verify`` notes
            damage, and ``clean`` goes by that.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise CorruptError(f"package is missing: {path}") from error
    except LengthError as error:
        raise CorruptError(f"package is damaged: {path}: {error.message}") from error
    except _DAMAGE as error:
        if isinstance(error, OSError) and is_of_the_host(error):
            raise storage_error("read", path, error) from error
        why = str(error) or type(error).__name__
        raise CorruptError(f"package is damaged: {path}: {why}") from error


def open_file(path: Path, buffer_bytes: int = -1) -> BinaryIO:
    """Open a file of a package for reading. Blocks.

    Raises:
        OSError: it cannot be opened.
    """
    # Neither a link nor a pipe in the place of a package may lead us on.
    return os.fdopen(TargetPath.in_domain(path).open_file(), "rb", buffer_bytes)


def file_names(directory: Path) -> list[str]:
    """Return the names of the files in a directory of packages. Blocks.

    Raises:
        CorruptError: it is missing or cannot be read.
    """
    with reading(directory):
        return TargetPath.of(directory, 1).file_names()

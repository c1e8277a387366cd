"""The files of packages, which can be damaged or hostile: opened and listed safely.

All their defects become errors of this program.
"""

import lzma
import os
import struct
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

from anyio import to_thread
from zstandard import ZstdError

from virtbackup_async.errors import CorruptError
from virtbackup_async.files.refusals import read_error
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.images.digest import LengthError
from virtbackup_async.model.packager import Location, type_of

# Headers have numbers as text, so a hostile one can raise any error of a conversion.
_DAMAGE = (
    OSError, EOFError, ValueError, IndexError, OverflowError, MemoryError, struct.error,
    tarfile.TarError, zlib.error, lzma.LZMAError, ZstdError,
)  # fmt: skip


@contextmanager
def reading_package(path: Path | str) -> Iterator[None]:
    """Turn errors of the block into a ``CorruptError`` that names the package.

    Raises:
        CorruptError: it is missing or damaged.
        StorageError: it cannot be read now. This does not count as damage, which ``verify`` would
            record and ``clean`` would act on.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise CorruptError(f"package is missing: {path}") from error
    except LengthError as error:
        raise CorruptError(f"package is damaged: {path}: {error.message}") from error
    except _DAMAGE as error:
        # Decompressors can raise OSErrors as well, which have no number.
        if isinstance(error, OSError) and error.errno is not None:
            raise read_error("package", path, error) from error
        why = str(error) or type(error).__name__
        raise CorruptError(f"package is damaged: {path}: {why}") from error


def open_file(path: Path, buffer_bytes: int = -1) -> BinaryIO:
    """Open a file of a package for reading. Blocks.

    Raises:
        OSError: it cannot be opened.
    """
    # Neither a link nor a pipe in the place of a package is opened.
    return os.fdopen(TargetPath.in_domain(path).open_file(), "rb", buffer_bytes)


async def files_of(location: Location) -> tuple[str, ...]:
    """Return the names of a package's files, sorted, as its directory shows them.

    Raises:
        CorruptError: the directory is missing or cannot be read.
    """
    return await to_thread.run_sync(_files_of, location)


def _files_of(location: Location) -> tuple[str, ...]:
    with reading_package(location.directory):
        names = TargetPath.of(location.directory, 1).file_names()
    return files_among(names, location)


def files_among(names: Iterable[str], location: Location) -> tuple[str, ...]:
    """Return the names of a package's files, sorted, by the names in the domain's directory."""
    packed_name = partial(type_of(location.packager).packed_name, location.name)
    return tuple(sorted(file for name in names if (file := packed_name(name)) is not None))

"""What the standard readers raise on a damaged package, said as one error of ours."""

import lzma
import struct
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zstandard import ZstdError

from virtbackup_async.errors import CorruptError

# Headers are numbers in text: a hostile one surfaces as whatever the conversion stumbles over.
_DAMAGE = (
    OSError, EOFError, ValueError, IndexError, OverflowError, MemoryError, struct.error,
    tarfile.TarError, zlib.error, lzma.LZMAError, ZstdError,
)  # fmt: skip


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what goes wrong in the block into a ``CorruptError`` that names the package."""
    try:
        yield
    except FileNotFoundError as error:
        raise CorruptError(f"package is missing: {path}") from error
    except _DAMAGE as error:
        why = str(error) or type(error).__name__
        raise CorruptError(f"package is damaged: {path}: {why}") from error

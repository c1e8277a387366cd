"""A limit on the headers that ``tarfile`` reads, because it believes the lengths in them.

A name of a terabyte, or a list of a billion extents, takes a few bytes in a compressed archive, and
would be read into memory. tarfile reads headers with ``read``; disks are read with ``readinto``.
"""

import io
import tarfile
from typing import BinaryIO, Final

# The largest header that this program writes is a list of 65536 extents, 2.5 MiB.
_MOST_AT_ONCE: Final = 4 << 20
_MOST_BYTES: Final = 64 << 20


class HeadReader:
    """An archive's decompressed bytes, of which a limited number can be read as headers."""

    def __init__(self, plain: BinaryIO) -> None:
        self._plain = plain
        self._read_bytes = 0

    def read(self, count: int) -> bytes:
        """Return some bytes of headers.

        Raises:
            tarfile.ReadError: there are more than in any real archive.
        """
        self._read_bytes += max(0, count)
        if not 0 <= count <= _MOST_AT_ONCE or self._read_bytes > _MOST_BYTES:
            raise tarfile.ReadError("its headers are too long")
        return self._plain.read(count)

    def readinto(self, target: memoryview) -> int:
        count: int = self._plain.readinto(target)  # type: ignore[attr-defined]
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._plain.seek(offset, whence)

    def tell(self) -> int:
        return self._plain.tell()

    def close(self) -> None:
        self._plain.close()

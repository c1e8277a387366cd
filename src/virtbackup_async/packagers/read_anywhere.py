"""Random access to an image of a package whose parts have no hashes: tar and zstd packages.

One read is made at a time, so a reader can keep one file position, or one decompressed run.
"""

from pathlib import Path

from anyio import Lock, to_thread

from virtbackup_async.errors import ImageError
from virtbackup_async.images.extents import common
from virtbackup_async.images.pieces import ImageReader
from virtbackup_async.model.extent import Extent
from virtbackup_async.packagers.interface import check_range


class ReadAnywhere:
    """The ``RandomAccess`` to an ``ImageReader`` that accepts any order of offsets.

    Args:
        reader: has data extents, and is closed by the caller.
    """

    digest = None

    def __init__(self, reader: ImageReader) -> None:
        self.size_bytes = reader.size_bytes
        self._reader = reader
        self._lock = Lock()

    async def extents(self) -> tuple[Extent, ...]:
        return self._reader.data_extents or ()

    async def read(self, offset: int, length: int) -> bytes:
        check_range(self, offset, length)
        async with self._lock:
            return await to_thread.run_sync(self._read, offset, length)

    def _read(self, offset: int, length: int) -> bytes:
        data = bytearray(length)
        view = memoryview(data)
        parts = common([Extent(offset, length)], self._reader.data_extents or ())
        self._reader.read(
            [(part.start, view[part.start - offset : part.end - offset]) for part in parts]
        )
        return bytes(data)


def only_in_order(file: str, package: Path) -> ImageError:
    """Return the error for an image that cannot be read anywhere."""
    return ImageError(
        f"{file} in package {package} can only be read from front to back",
        hint="Restore or export it.",
    )

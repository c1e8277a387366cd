"""What every packager offers: a writer of disk streams into a target, and a reader of them.

The engine knows these two protocols only; ``registry.py`` opens the right ones. ``file`` is
always a plain name inside the package, never a path.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from virtbackup_async.images.stream import DiskStream

Progress = Callable[[int], None]


class PackageWriter(Protocol):
    """A package being made.

    Attributes:
        concurrent_disks: whether several ``add_disk`` run faster at once; where False they are
            allowed all the same, and wait for each other.
    """

    @property
    def concurrent_disks(self) -> bool: ...

    async def add_disk(self, file: str, stream: DiskStream, on_progress: Progress) -> int:
        """Put a disk stream into the package as ``file``.

        ``on_progress`` is told the data bytes of the stream that have gone by. After an error or
        a cancellation the whole package can only be discarded.

        Returns:
            By how many bytes the package grew.

        Raises:
            DefinitionError: ``file`` is not a plain name.
            StorageError: the target is full, not writable, or has such a file already.
        """
        ...

    async def finish(self) -> None:
        """Make the whole package durable: data, and the names in the directory."""
        ...

    async def discard(self) -> None:
        """Remove everything this writer made, and nothing else. May be called again."""
        ...


class PackageReader(Protocol):
    """A package that exists. Several disks may be read at once."""

    def open_disk(self, file: str) -> AbstractAsyncContextManager[DiskStream]:
        """Stream a disk out of the package.

        Raises:
            DefinitionError: ``file`` is not a plain name.
            CorruptError: the package or the file in it is missing, damaged or cut off; raised
                when opened, or by the stream where the damage is.
        """
        ...

    async def files(self) -> tuple[str, ...]:
        """The names of the files in the package, sorted."""
        ...

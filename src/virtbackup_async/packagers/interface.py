"""What every packager offers: a writer of disk streams into a target, and a reader of them.

The engine knows these two protocols only; ``registry.py`` opens the right ones. ``file`` is
always a plain name inside the package, never a path.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

from msgspec import Struct

from virtbackup_async.images.stream import DiskStream
from virtbackup_async.model.extent import Extent

Progress = Callable[[int], None]


class PackageWriter(Protocol):
    """A package being made.

    Several ``add_disk`` may run at once; where the format has room for one at a time, they wait
    for each other.
    """

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


class Stored(Struct, frozen=True):
    """What became of an image of which only a part was read.

    Attributes:
        stored_bytes: by how much the package grew.
        data_bytes: what of the whole image is not hole.
        digest: of the whole image.
    """

    stored_bytes: int
    data_bytes: int
    digest: str


class BaseImage(Protocol):
    """An image of an earlier package, to be taken over but for what changed since."""

    @property
    def size_bytes(self) -> int: ...

    async def choose(
        self, changed: Sequence[Extent], doubtful: Sequence[Extent] = ()
    ) -> tuple[Extent, ...]:
        """Say which parts have to be read, once: what changed, and what is not there any more.

        Of ``doubtful``, what was zeros is read as well.
        """
        ...

    async def sample(self, percent: float, data: Sequence[Extent] | None) -> tuple[Extent, ...]:
        """Draw some of the other parts, of which ``data`` is not zeros by now.

        Where that alone shows that they may have changed, they are drawn at any ``percent``.
        """
        ...

    async def is_as_it_was(self, parts: Sequence[Extent], stream: DiskStream) -> bool:
        """Read parts to the end, and tell whether they are what the earlier package has."""
        ...


@runtime_checkable
class IncrementalWriter(PackageWriter, Protocol):
    """A package that can take over what earlier packages of its target have."""

    def take_problem(self) -> str | None:
        """Return what of these turned out to be damaged, in words; told to one of all writers."""
        ...

    def open_base(self, file: str) -> AbstractAsyncContextManager[BaseImage]:
        """Open the image of an earlier package.

        Raises:
            CorruptError: it is missing or damaged.
        """
        ...

    async def add_changes(
        self, file: str, stream: DiskStream, base: BaseImage, on_progress: Progress
    ) -> Stored:
        """Put an image into the package as ``file``: what was chosen to be read, and the base.

        ``stream`` brings the parts that ``base`` chose. All else is as for ``add_disk``.
        """
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


class RandomAccess(Protocol):
    """An image in a package that can be read anywhere; several tasks may read at once.

    Attributes:
        size_bytes: the image's length, holes included.
        digest: the image's, where opening it is enough to know it. Then every byte that ``read``
            returns has been checked, and belongs to an image of that digest. Where it is None,
            ``read`` returns the bytes as the package has them, and only a sequential read of the
            whole image can show that they are what was backed up.
    """

    @property
    def size_bytes(self) -> int: ...
    @property
    def digest(self) -> str | None: ...

    async def extents(self) -> tuple[Extent, ...]:
        """Return which parts can hold data, ascending; all others read as zeros."""
        ...

    async def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset``, which must be inside the image.

        A cancellation waits until the bytes are read.

        Raises:
            CorruptError: some of them are damaged or missing; others may be readable.
            StorageError: they cannot be read now.
            ValueError: they are not all inside the image.
        """
        ...


@runtime_checkable
class RandomAccessReader(PackageReader, Protocol):
    """A package whose images can be read anywhere without reading all that precedes."""

    def open_image(self, file: str) -> AbstractAsyncContextManager[RandomAccess]:
        """Open an image of the package; raises as ``open_disk`` does.

        The block is left when no task reads the image any more. The memory of an open image is
        bounded, but for the bytes that are being returned: the caller bounds those.
        """
        ...


def check_range(image: RandomAccess, offset: int, length: int) -> None:
    """Raise ``ValueError`` unless a range is inside an image."""
    if offset < 0 or length < 0 or offset + length > image.size_bytes:
        message = f"bytes {offset} to {offset + length} of an image of {image.size_bytes}"
        raise ValueError(message)

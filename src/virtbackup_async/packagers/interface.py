"""The protocols of packagers: a writer of disk streams into a target, and a reader of them.

The engine uses these protocols only; ``registry.py`` opens the right classes. ``file`` is always a
plain name inside the package, never a path.
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

    Several ``add_disk`` may run at once; if the format can take only one disk at a time, they wait
    for each other.
    """

    async def add_disk(self, file: str, stream: DiskStream, on_progress: Progress) -> int:
        """Put a disk stream into the package as ``file``.

        ``on_progress`` is called with the data bytes of the stream so far. After an error or a
        cancellation the package can only be discarded.

        Returns:
            The number of bytes by which the package grew.

        Raises:
            DefinitionError: ``file`` is not a plain name.
            StorageError: the target is full, not writable, or has such a file already.
        """
        ...

    async def finish(self) -> None:
        """Make the complete package durable: data, and the names in the directory."""
        ...

    async def discard(self) -> None:
        """Remove everything that this writer created, and nothing else. Can be called again."""
        ...


class Stored(Struct, frozen=True):
    """The result of storing an image of which only a part was read.

    Attributes:
        stored_bytes: the number of bytes by which the package grew.
        data_bytes: of the whole image, without holes.
        digest: of the whole image.
    """

    stored_bytes: int
    data_bytes: int
    digest: str


class NewData(Struct, frozen=True):
    """The data of an image that its target did not have before.

    Attributes:
        data_bytes: its length.
        compressed_bytes: the space that it takes in the target.
    """

    data_bytes: int = 0
    compressed_bytes: int = 0

    def __add__(self, other: "NewData") -> "NewData":
        return NewData(
            self.data_bytes + other.data_bytes, self.compressed_bytes + other.compressed_bytes
        )


class BaseImage(Protocol):
    """An image of an earlier package, which supplies the parts that have not changed since."""

    @property
    def size_bytes(self) -> int: ...

    async def choose(
        self, changed: Sequence[Extent], doubtful: Sequence[Extent] = ()
    ) -> tuple[Extent, ...]:
        """Return the extents to read: changed ones, and those that are missing; call it once.

        Extents of ``doubtful`` that were zeros are read as well.
        """
        ...

    async def sample(self, percent: float, data: Sequence[Extent] | None) -> tuple[Extent, ...]:
        """Return a random sample of the other parts; ``data`` are their extents with data now.

        Parts that ``data`` shows to have changed are always in the sample.
        """
        ...

    async def is_as_it_was(self, parts: Sequence[Extent], stream: DiskStream) -> bool:
        """Read the parts, and return whether they equal those of the earlier package."""
        ...


@runtime_checkable
class IncrementalWriter(PackageWriter, Protocol):
    """A package that can take over data of earlier packages in its target."""

    def take_problem(self) -> str | None:
        """Return a sentence on damage in these, if any; only one of the writers returns it."""
        ...

    def open_base(self, file: str, directory: str = "") -> AbstractAsyncContextManager[BaseImage]:
        """Open the image of an earlier package.

        Args:
            file: its name in that package.
            directory: the name of the directory of that package; empty for this one's.

        Raises:
            CorruptError: it is missing or damaged.
        """
        ...

    async def add_changes(
        self, file: str, stream: DiskStream, base: BaseImage, on_progress: Progress
    ) -> Stored:
        """Put an image into the package as ``file``, from the parts that were read and the base.

        ``stream`` has the parts that ``base`` chose. The rest is as for ``add_disk``.
        """
        ...

    def new_data(self, file: str) -> NewData:
        """Return how much of an image that was added was new."""
        ...


class Taken(Struct, frozen=True):
    """The result of taking an image over from another package.

    Attributes:
        size_bytes: the image's length, holes included.
        data_bytes: of the image, without holes.
        read_bytes: how much of that was read: the rest is in the target already.
        stored_bytes: the number of bytes by which the package grew.
        digest: of the image.
    """

    size_bytes: int
    data_bytes: int
    read_bytes: int
    stored_bytes: int
    digest: str


@runtime_checkable
class TakingWriter(Protocol):
    """A package that can take an image over without reading what its target already has."""

    async def take_image(
        self, file: str, source: "PackageReader", source_file: str, on_progress: Progress
    ) -> Taken | None:
        """Take the image ``source_file`` of another package over, as ``file``.

        The rest is as for ``add_disk``. None if that is not possible; nothing was added then.

        Raises:
            CorruptError: the other package is damaged.
        """
        ...


class PackageReader(Protocol):
    """A package that exists. Several disks may be read at once."""

    def open_disk(self, file: str) -> AbstractAsyncContextManager[DiskStream]:
        """Open a stream of a disk in the package.

        Raises:
            DefinitionError: ``file`` is not a plain name.
            CorruptError: the package or the file in it is missing, damaged or cut off; raised
                when opened, or by the stream where the damage is.
        """
        ...

    async def files(self) -> tuple[str, ...]:
        """Return the names of the files in the package, sorted."""
        ...


class RandomAccess(Protocol):
    """An image in a package that can be read anywhere; several tasks may read at once.

    Attributes:
        size_bytes: the image's length, holes included.
        digest: the image's, if opening the image is enough to know it. Then every byte that
            ``read`` returns has been checked, and belongs to an image of that digest. If it is
            None, ``read`` returns the bytes as the package has them, and only a sequential read of
            the complete image can show that they equal those that were backed up.
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
    """A package whose images can be read anywhere without reading all preceding data."""

    def open_image(self, file: str) -> AbstractAsyncContextManager[RandomAccess]:
        """Open an image of the package; raises as ``open_disk`` does, and ``ImageError``.

        Whether an image can be read anywhere can depend on how it is compressed. If it can only be
        read from front to back, that is an ``ImageError``.

        The caller leaves the block only when no task reads the image any more. The memory of an
        open image is bounded, except for the bytes that are being returned, which the caller
        bounds.
        """
        ...


def check_range(image: RandomAccess, offset: int, length: int) -> None:
    """Raise ``ValueError`` unless a range is inside an image."""
    if offset < 0 or length < 0 or offset + length > image.size_bytes:
        message = f"bytes {offset} to {offset + length} of an image of {image.size_bytes}"
        raise ValueError(message)

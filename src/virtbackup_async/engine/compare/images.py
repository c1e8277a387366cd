"""Measures the difference between two images, by the hashes of their leaves of 256 KiB.

::

    older    | a | b |   | c |         leaf by leaf; one of zeros is left out
    newer    | a | x | y | c | d |     x, y and d differ

The leaves of an image in a repository are in its map, so the image itself is not read. All data of
any other image is read and hashed. If neither is in a repository, the leaves of one are kept in
memory: 40 bytes each. The two are never read at the same time: there might be only one buffer.
"""

from array import array
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing
from typing import Final

from anyio import to_thread
from msgspec import Struct

from virtbackup_async.catalog.scanning import FoundBackup
from virtbackup_async.engine.restore.read_images import open_package
from virtbackup_async.errors import CorruptError
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.digest import LEAF_BYTES
from virtbackup_async.images.stream import DiskStream
from virtbackup_async.model.backup import ImageRecord
from virtbackup_async.model.packager import Location, type_of
from virtbackup_async.packagers.interface import PackageReader
from virtbackup_async.repository import ChunkMap, find_repository, open_map

Leaves = list[tuple[int, bytes]]
"""Number and hash of some leaves; numbers ascend."""

LEAF_LENGTH: Final = 32
_AT_ONCE: Final = 4096


class Image(Struct, frozen=True):
    """An image in an open package."""

    found: FoundBackup
    package: PackageReader
    record: ImageRecord

    @property
    def is_mapped(self) -> bool:
        """Whether a map has its leaves."""
        return type_of(self.found.definition.packager).uses_repository


async def open_packages(
    stack: AsyncExitStack, backups: tuple[FoundBackup, ...], buffers: BufferPool
) -> list[PackageReader]:
    """Open packages until the stack is closed; ``clean`` does not remove them until then."""
    return [
        await stack.enter_async_context(open_package(found.definition, found.path.parent, buffers))
        for found in backups
    ]


async def changed_bytes(older: Image, newer: Image) -> int:
    """Return how many bytes are in leaves that differ; leaves past the other image's end count.

    Raises:
        CorruptError: one of them is damaged.
        StorageError: it cannot be read.
    """
    size_bytes = max(older.record.size_bytes, newer.record.size_bytes)
    first, second = (newer, older) if newer.is_mapped else (older, newer)
    left = _of_map(first) if first.is_mapped else (await _read(first)).batches()
    changed = 0
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(aclosing(left))
        right = _of_map(second) if second.is_mapped else _of_stream(await _open(second, stack))
        await stack.enter_async_context(aclosing(right))
        async with aclosing(differing(left, right)) as numbers:
            async for number in numbers:
                changed += max(0, min(LEAF_BYTES, size_bytes - number * LEAF_BYTES))
    return changed


async def differing(
    left: AsyncIterator[Leaves], right: AsyncIterator[Leaves]
) -> AsyncGenerator[int]:
    """Yield the numbers of the leaves that only one side has, or that differ."""
    ours, theirs = _Rest(left), _Rest(right)
    while await ours.fill() | await theirs.fill():
        end = min(rest.last for rest in (ours, theirs) if rest.leaves)
        one, known = ours.take(end), dict(theirs.take(end))
        for number, leaf in one:
            if known.pop(number, None) != leaf:
                yield number
        for number in known:
            yield number


class _Rest:
    """The leaves of one side that were not compared yet; ``leaves`` are the ones in memory."""

    def __init__(self, coming: AsyncIterator[Leaves]) -> None:
        self._coming = coming
        self.leaves: Leaves = []
        self._is_ended = False

    async def fill(self) -> bool:
        """Get more leaves if none are in memory; return whether there are any."""
        while not self.leaves and not self._is_ended:
            batch = await anext(self._coming, None)
            self._is_ended = batch is None
            self.leaves = batch or []
        return bool(self.leaves)

    @property
    def last(self) -> int:
        """The last number of the leaves."""
        return self.leaves[-1][0]

    def take(self, end: int) -> Leaves:
        """Remove and return the leaves up to a number."""
        place = len(self.leaves)
        while place and self.leaves[place - 1][0] > end:
            place -= 1
        taken, self.leaves = self.leaves[:place], self.leaves[place:]
        return taken


class _Table:
    """The leaves of an image, in as little memory as possible."""

    def __init__(self) -> None:
        self._numbers = array("Q")
        self._leaves = bytearray()

    def add(self, leaves: Leaves) -> None:
        self._numbers.extend(number for number, _ in leaves)
        self._leaves += b"".join(leaf for _, leaf in leaves)

    async def batches(self) -> AsyncGenerator[Leaves]:
        for first in range(0, len(self._numbers), _AT_ONCE):
            numbers = self._numbers[first : first + _AT_ONCE]
            at = range(first * LEAF_LENGTH, (first + len(numbers)) * LEAF_LENGTH, LEAF_LENGTH)
            leaves = (bytes(self._leaves[start : start + LEAF_LENGTH]) for start in at)
            yield list(zip(numbers, leaves, strict=True))


async def _read(image: Image) -> _Table:
    table = _Table()
    async with AsyncExitStack() as stack:
        async for batch in _of_stream(await _open(image, stack)):
            table.add(batch)
    return table


async def _open(image: Image, stack: AsyncExitStack) -> DiskStream:
    stream = await stack.enter_async_context(image.package.open_disk(image.record.file))
    if stream.size_bytes != image.record.size_bytes:
        message = f"it is {stream.size_bytes} bytes long, not {image.record.size_bytes}"
        raise CorruptError(message, path=image.found.path)
    return stream


async def _of_stream(stream: DiskStream) -> AsyncGenerator[Leaves]:
    while (batch := await stream.take()) is not None:
        # Given back at once: the other image might need the only buffer.
        try:
            leaves = [
                (piece.offset // LEAF_BYTES + place, leaf)
                for piece in batch.pieces
                for place, leaf in enumerate(piece.leaves)
            ]
        finally:
            batch.give_back()
        yield leaves


async def _of_map(image: Image) -> AsyncGenerator[Leaves]:
    chunk_map = await to_thread.run_sync(_open_map, image)
    try:
        blocks = _batches(chunk_map)
        while (batch := await to_thread.run_sync(next, blocks, None)) is not None:
            yield batch
    finally:
        chunk_map.close()


def _batches(chunk_map: ChunkMap) -> Iterator[Leaves]:
    for block in chunk_map.blocks():
        yield list(zip(block["number"].tolist(), block["leaf"].tolist(), strict=True))


def _open_map(image: Image) -> ChunkMap:
    definition, directory = image.found.definition, image.found.path.parent
    repository = find_repository(directory.target)
    if repository is None:
        raise CorruptError(f"{directory.target} has no repository any more")
    location = Location.below(directory, definition.packager, definition.name)
    return open_map(repository.storage, location.stored_name(image.record.file))

"""Writes segments of the index: sorted, complete and durable before they have their names.

Called by the writer for the chunks that it stored, and by the prune for the remaining records of
other segments. Invariant: the caller is notified of the name before anything else can fail. From
then on others can rely on the segment, so no pack that it names may be removed.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from blake3 import blake3
from msgspec import Struct

from virtbackup_async.repository.format import index_format as wire
from virtbackup_async.repository.index.segments import Location
from virtbackup_async.repository.storage.interface import HiddenFile
from virtbackup_async.repository.storage.layout import Repository

_PLACES_AT_ONCE: Final = 1 << 16


class Content(Struct):
    """The content of a segment to be written.

    Attributes:
        packs: names; the records refer to them by their places in this list.
        blocks: the records by ascending id, some at a time.
        at_most: the greatest number of records, for which the fan-out is made.
    """

    packs: Sequence[bytes]
    blocks: Iterable[wire.Records]
    at_most: int


def content_of(places: Iterable[tuple[bytes, Location]]) -> Content:
    """Return the content of a segment with some chunks, which can come in any order."""
    ordered = sorted(places)
    numbers: dict[bytes, int] = {}
    for _, location in ordered:
        numbers.setdefault(location.pack, len(numbers))
    blocks = (
        wire.encode_records(
            wire.Record(id_, numbers[location.pack], location.offset, location.length)
            for id_, location in ordered[first : first + _PLACES_AT_ONCE]
        )
        for first in range(0, len(ordered), _PLACES_AT_ONCE)
    )
    return Content(list(numbers), blocks, len(ordered))


def write_segment(
    repository: Repository, name: str, content: Content, on_named: Callable[[], None]
) -> None:
    """Write a segment, durably. Blocks.

    Args:
        repository: where the segment belongs.
        name: of its file; free, and used by no other process.
        content: its packs and records.
        on_named: called as soon as the segment has its name, or might have it: a later error does
            not take the segment back.

    Raises:
        StorageError: the target is full or not writable.
    """
    file = repository.storage.create_hidden(name)
    try:
        _write(file, repository, content)
        file.finish()
        file.publish(on_named)
    except BaseException:
        file.discard()
        raise


def nothing_follows() -> None:
    """Do nothing: an ``on_named`` for callers that remove nothing after a failure."""


def _write(file: HiddenFile, repository: Repository, content: Content) -> None:
    digest = blake3()

    def put(data: bytes) -> None:
        digest.update(data)
        file.append(data)

    put(wire.encode_head(repository.id))
    fan_out = wire.FanOut(wire.bits_for(content.at_most))
    records = 0
    for block in content.blocks:
        put(block.tobytes())
        fan_out.add(wire.keys_of(block))
        records += len(block)
    put(fan_out.encode())
    put(b"".join(content.packs))
    put(wire.encode_tail(wire.Shape(records, fan_out.bits, len(content.packs))))
    file.append(digest.digest())

"""Writing segments of the index: whole, sorted, durable before they have their names.

Called by the writer for what it stored, and by the prune for what is left of others. Invariant: the
caller hears of the name before anything else can fail. From then on others may count on what the
segment says, so nothing that it names is ever taken back.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from blake3 import blake3
from msgspec import Struct

from virtbackup_async.files.closing import close
from virtbackup_async.files.refusals import storage_error
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.repository.format import index_format as wire
from virtbackup_async.repository.index.segments import Location
from virtbackup_async.repository.storage.layout import (
    Repository,
    sync,
    write_all,
)

_PLACES_AT_ONCE: Final = 1 << 16


class Content(Struct):
    """What a segment is to hold.

    Attributes:
        packs: names; the records have their places in this list.
        blocks: the records by ascending id, some at a time.
        at_most: how many records there may be: the fan-out is made for that many.
    """

    packs: Sequence[bytes]
    blocks: Iterable[wire.Records]
    at_most: int


def content_of(places: Iterable[tuple[bytes, Location]]) -> Content:
    """Return what a segment holds of some chunks, in whatever order they come."""
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
    repository: Repository, path: Path, content: Content, on_named: Callable[[], None]
) -> None:
    """Write a segment, durably. Blocks.

    Args:
        repository: whose.
        path: its name, which is free.
        content: what it holds.
        on_named: called as soon as the segment has its name, or may have it; that may be followed
            by an error, and the segment stays all the same.

    Raises:
        StorageError: the target is full or not writable.
    """
    place = repository.inside(path)
    part = place.parent.temporary()
    fd = part.create()
    try:
        try:
            _write_segment(fd, part.path, repository, content)
            sync(fd, part.path)
        finally:
            close(fd)
        _give_name(part, place, on_named)
    except BaseException:
        # What is left of it, the prune removes.
        with suppress(OSError):
            part.unlink()
        raise
    place.parent.sync_names()


def nothing_follows() -> None:
    """Be the ``on_named`` of who takes nothing back anyway."""


def _give_name(part: TargetPath, place: TargetPath, on_named: Callable[[], None]) -> None:
    try:
        part.rename(place.name)
    except OSError as error:
        # A server may have done what its answer denies.
        if not _is_surely_free(place):
            on_named()
        raise storage_error("write", place.path, error) from error
    on_named()


def _is_surely_free(place: TargetPath) -> bool:
    try:
        return not place.exists()
    except OSError:
        return False


def _write_segment(fd: int, path: Path, repository: Repository, content: Content) -> None:
    digest = blake3()

    def put(data: bytes) -> None:
        digest.update(data)
        write_all(fd, data, path)

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
    write_all(fd, digest.digest(), path)

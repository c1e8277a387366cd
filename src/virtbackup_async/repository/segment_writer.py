"""Writing segments of the index: whole, sorted, durable before they have their names.

Called by the writer for what it stored, and by the sweep for what is left of others.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from blake3 import blake3
from msgspec import Struct

from virtbackup_async.images.durable import storage_error, sync_file, temporary_path
from virtbackup_async.repository import index_format as wire
from virtbackup_async.repository.layout import Repository, create_file, sync, write_all
from virtbackup_async.repository.segments import Location

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


def write_segment(repository: Repository, path: Path, content: Content) -> None:
    """Write a segment, durably. Blocks.

    Args:
        repository: whose.
        path: its name, which is free.
        content: what it holds.

    Raises:
        StorageError: the target is full or not writable.
    """
    part = temporary_path(repository.index)
    fd = create_file(part)
    try:
        try:
            _write_segment(fd, part, repository, content)
            sync(fd, part)
        finally:
            os.close(fd)
        try:
            part.rename(path)
            sync_file(repository.index)
        except OSError as error:
            raise storage_error("write", path, error) from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise


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

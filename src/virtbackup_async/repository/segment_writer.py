"""Writing segments of the index: whole, sorted, durable before they have their names.

Called by the writer for what it stored, and by the sweep for what is left of others.
"""

import heapq
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from blake3 import blake3

from virtbackup_async.images.durable import storage_error, sync_file, temporary_path
from virtbackup_async.repository import index_format as wire
from virtbackup_async.repository.layout import Repository, create_file, sync, write_all
from virtbackup_async.repository.segments import Location, Segment

_PIECE_BYTES: Final = 1 << 20


def write_segment(
    repository: Repository, path: Path, places: Iterable[tuple[bytes, Location]], at_most: int
) -> None:
    """Write a segment, durably. Blocks.

    Args:
        repository: whose.
        path: its name, which is free.
        places: chunks by ascending id.
        at_most: how many there may be: the fan-out is made for that many.

    Raises:
        StorageError: the target is full or not writable.
    """
    part = temporary_path(repository.index)
    fd = create_file(part)
    try:
        try:
            _write_segment(fd, part, repository, places, at_most)
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


def merged(
    segments: Iterable[Segment], without: frozenset[bytes] = frozenset()
) -> Iterator[tuple[bytes, Location]]:
    """Give the chunks of several segments by id, but for those in some packs."""
    for id_, location in heapq.merge(*(segment.records() for segment in segments)):
        if location.pack not in without:
            yield id_, location


def _write_segment(
    fd: int,
    path: Path,
    repository: Repository,
    places: Iterable[tuple[bytes, Location]],
    at_most: int,
) -> None:
    digest = blake3()

    def put(data: bytes) -> None:
        digest.update(data)
        write_all(fd, data, path)

    put(wire.encode_head(repository.id))
    fan_out = wire.FanOut(wire.bits_for(at_most))
    numbers: dict[bytes, int] = {}
    records = 0
    lines = bytearray()
    for id_, location in places:
        number = numbers.setdefault(location.pack, len(numbers))
        lines += wire.encode_record(wire.Record(id_, number, location.offset, location.length))
        fan_out.add(id_)
        records += 1
        if len(lines) >= _PIECE_BYTES:
            put(bytes(lines))
            lines.clear()
    put(bytes(lines))
    put(fan_out.encode())
    put(b"".join(numbers))
    put(wire.encode_tail(wire.Shape(records, fan_out.bits, len(numbers))))
    write_all(fd, digest.digest(), path)

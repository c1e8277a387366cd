"""Images of numbered chunks in the repository of any storage: stored, read back, pruned.

As a program: ``stored_images.py BUCKET/PREFIX ENDPOINT WRITER NIGHTS`` makes a backup a night and
removes each after two nights; it prints the name of each backup as soon as it is complete.
"""

import random
import sys
from collections.abc import Sequence
from contextlib import closing
from functools import cache
from pathlib import Path

from fakes.small_repository import content
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository import (
    CHUNK_BYTES,
    ChunkReader,
    ChunkWriters,
    MapEntry,
    MapFile,
    MapHead,
    MapWriter,
    Pruned,
    Storage,
    entries_of,
    open_map,
    open_storage,
    prune_repository,
)
from virtbackup_async.repository.format.chunks import ALL_PAGES, chunk_id
from virtbackup_async.repository.storage.interface import Kind
from virtbackup_async.repository.storage.repository_file import find_in, make_in

KEPT_NIGHTS = 2


@cache
def chunk(number: int) -> bytes:
    """The content of a chunk."""
    return content([number])


@cache
def id_of(number: int) -> bytes:
    """Its id in a repository without keys; with keys, what the id is made of."""
    return chunk_id(chunk(number))


def store_image(
    storage: Storage, name: str, numbers: Sequence[int], key_file: Path | None = None
) -> None:
    """Make a backup of an image; it is complete when this returns."""
    repository = make_in(storage, key_file)
    with closing(ChunkWriters().open(repository, 1)) as writer:
        head = MapHead(repository.id, len(numbers) * CHUNK_BYTES)
        image = MapWriter(repository.storage, f"web/{name}.map", head)
        try:
            for number in numbers:
                writer.add({writer.id_of(id_of(number)): memoryview(chunk(number))})
                writer.refresh()
            image.add(
                entries_of([MapEntry(at, ALL_PAGES, id_of(n)) for at, n in enumerate(numbers)])
            )
            image.finish()
            writer.publish()
            image.publish()
            writer.check()
        finally:
            image.discard()


def read_image(storage: Storage, name: str, key_file: Path | None = None) -> list[bytes]:
    """Read a backup back, chunk by chunk."""
    repository = find_in(storage, key_file)
    assert repository
    with (
        closing(open_map(repository.storage, f"web/{name}.map")) as image,
        closing(ChunkReader(repository)) as reader,
    ):
        return [bytes(reader.read(entry.leaf)) for entry in image.entries()]


def maps_in(storage: Storage) -> list[MapFile]:
    """All maps of the target."""
    return [MapFile(f"web/{name}", name) for name in storage.names("web", {Kind.FILE})]


def prune_images(storage: Storage, key_file: Path | None = None) -> Pruned:
    """Remove the chunks that no map needs."""
    repository = make_in(storage, key_file)
    return prune_repository(repository, lambda: maps_in(repository.storage), lambda: None)


def image_of(writer: int, night: int) -> list[int]:
    """Chunks that other writers and nights have too, and one that none has."""
    numbers = random.Random(writer * 100 + night)
    return [*(numbers.randrange(1, 20) for _ in range(5)), 1000 + writer * 100 + night]


def main(path: str, endpoint: str, writer: int, nights: int) -> None:
    """Make backups, night after night."""
    storage = open_storage(StorageLocation("s3", path, endpoint=endpoint))
    for night in range(nights):
        store_image(storage, f"{writer}-{night}", image_of(writer, night))
        sys.stdout.write(f"{writer}-{night}\n")
        sys.stdout.flush()
        if night >= KEPT_NIGHTS:
            storage.remove(f"web/{writer}-{night - KEPT_NIGHTS}.map")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))

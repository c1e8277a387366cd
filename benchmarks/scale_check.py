"""Compares everything that a simulation (``scale.py``) has left with what the disks held.

Each map must name the chunks of its disk on that night, and each chunk is read once and compared.
Some images are restored as a whole, too.
"""

import random
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from msgspec import Struct

from benchmarks.scale_disks import IMAGE_BYTES, Disk, content, disk, is_image
from benchmarks.scale_host import DAY_S, FIRST_S, guest_number
from virtbackup_async.catalog.scanning import FoundBackup
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.sinks.sparse import write_sparse
from virtbackup_async.model.packager import Location, packed_files
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.packagers.registry import open_reader
from virtbackup_async.repository import ChunkReader, Repository, make_repository, open_map
from virtbackup_async.repository.format.chunks import chunk_id


class DiffersError(Exception):
    """Something is not what was backed up."""


class Checked(Struct):
    """What was compared.

    Attributes:
        listed: the backups whose maps were.
        chunks: the different chunks that were read for that.
        restored: the images that were restored as a whole.
        newest: the night of each guest's newest backup, by its name.
        seconds: how long it took.
    """

    listed: int
    chunks: int
    restored: int
    newest: dict[str, int]
    seconds: float


async def check(target: StorageLocation, directory: Path, sample: int) -> Checked:
    """Compare everything that is listed.

    Args:
        target: of all hosts.
        directory: for a restored image.
        sample: how many images to restore.

    Raises:
        DiffersError: something is not what was backed up.
    """
    begun = time.monotonic()
    scan = await Catalog(target).scan()
    if scan.problems:
        raise DiffersError(scan.problems[0].message)
    repository = make_repository(target)
    numbers = _compared(scan.complete, repository, target)
    with closing(ChunkReader(repository)) as chunks:
        for number in numbers:
            if bytes(chunks.read(chunk_id(content(number)))) != content(number):
                raise DiffersError(f"chunk {number}")
    chosen = random.Random(0).sample(scan.complete, min(sample, len(scan.complete)))  # noqa: S311
    for number, found in enumerate(chosen):
        await _restore(found, target, directory / f"restored-{number}")
    newest = {found.definition.domain_name: _night_of(found) for found in scan.complete}
    taken_s = time.monotonic() - begun
    return Checked(len(scan.complete), len(numbers), len(chosen), newest, taken_s)


def _compared(
    listed: Sequence[FoundBackup], repository: Repository, target: StorageLocation
) -> dict[int, None]:
    """Compare the maps of all backups with the disks; return the numbers of their chunks."""
    numbers: dict[int, None] = {}
    ids: dict[int, bytes] = {}
    for found in listed:
        held = _disk_of(found)
        ids |= {number: chunk_id(content(number)) for number in held.values() if number not in ids}
        (name,) = _location(found, target).stored_names(packed_files(found.definition))
        with closing(open_map(repository.storage, name)) as image:
            leaves = {entry.number: entry.leaf for entry in image.entries()}
            expected = {place: ids[number] for place, number in held.items()}
            if image.head.size_bytes != IMAGE_BYTES or leaves != expected:
                raise DiffersError(name)
        numbers |= dict.fromkeys(held.values())
    return numbers


async def _restore(found: FoundBackup, target: StorageLocation, path: Path) -> None:
    """Restore an image, and compare it byte for byte."""
    (file,) = packed_files(found.definition)
    location = _location(found, target)
    async with (
        open_reader(location.packager, found.path.parent, location.name, BufferPool()) as reader,
        reader.open_disk(file) as stream,
    ):
        await write_sparse(stream, path, lambda _: None)
    if not is_image(path, _disk_of(found)):
        raise DiffersError(f"{found.path}: {file}")


def _disk_of(found: FoundBackup) -> Disk:
    return disk(guest_number(found.definition.domain_name), _night_of(found))


def _night_of(found: FoundBackup) -> int:
    return round((found.definition.date - FIRST_S) / DAY_S)


def _location(found: FoundBackup, target: StorageLocation) -> Location:
    definition = found.definition
    return Location(definition.packager, target, found.path.parent.name, definition.name)

"""Each byte of each file of a repository flipped, each file cut at each length, and removed.

Whatever is damaged: ``verify`` says so, or it is shown here not to matter; and no reader ever gives
out a byte that differs.
"""

import os
import tempfile
from pathlib import Path

import pytest

from fakes.repository_files import files_of
from fakes.shared_site import SharedSite
from fakes.site import NOW
from fakes.small_repository import content
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.engine.verify.repository import verify_repository
from virtbackup_async.engine.verify.results import Results, SelectedBackup
from virtbackup_async.errors import CorruptError
from virtbackup_async.events import RepositoryDamaged, VerifyFailed
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.packagers.registry import open_reader
from virtbackup_async.repository.format import pack_format
from virtbackup_async.repository.storage.pending_deletion import (
    PendingDeletion,
    write_pending_deletion,
)

IMAGES = {"one": [1, 0, 2], "two": [2, 3]}
# Bits of a zstd frame: one in its head that the format calls unused, some that fill up bytes.
UNSEEN_BITS = 4

pytestmark = pytest.mark.timeout(300)


class Laboratory(SharedSite):
    """Two backups that share a chunk, and what is said and read when a file is damaged."""

    async def fill(self):
        self.backups = {
            name: await self.store_chunks(chunks, day=day)
            for day, (name, chunks) in enumerate(IMAGES.items())
        }
        note = PendingDeletion(frozenset({bytes(16)}), frozenset())
        write_pending_deletion(self.repository.storage, note)
        scan = await Catalog(StorageLocation.of(self.target)).scan()
        self.chosen = [SelectedBackup("all", found) for found in scan.complete]
        self.buffers = BufferPool()

    @property
    def files(self):
        """The files whose content matters, by what they are."""
        path = files_of(self.repository).root
        return {
            "repository": [path / "repository"],
            "condemned": [path / "condemned"],
            "segment": sorted((path / "index").iterdir()),
            "map": [stored.package for stored in self.backups.values()],
            "pack": self.packs,
        }

    async def is_found(self, *, quick=False):
        """Whether ``verify`` says that something is damaged."""
        events = []
        await verify_repository(
            StorageLocation.of(self.target), self.chosen, Results(NOW, quick, events.append)
        )
        return any(isinstance(event, VerifyFailed | RepositoryDamaged) for event in events)

    async def read(self):
        """How many backups come back as they were; the others must not come back at all."""
        count = 0
        for name, stored in self.backups.items():
            try:
                data = await self._read(stored)
            except CorruptError:
                continue
            assert data == content(IMAGES[name])
            count += 1
        return count

    async def _read(self, stored):
        data = bytearray()
        reader = open_reader(stored.packager, stored.directory, stored.name, self.buffers)
        async with reader as package, package.open_disk(stored.file) as stream:
            async for chunk in stream.pieces():
                data.extend(bytes(chunk.offset - len(data)))
                data += chunk.data
            return bytes(data.ljust(stream.size_bytes, b"\0"))


@pytest.fixture(scope="module")
async def laboratory():
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        site = Laboratory(Path(directory))
        await site.fill()
        assert not await site.is_found()
        assert await site.read() == len(IMAGES)
        yield site
        assert not await site.is_found(), "a test has left damage"


class Damaged:
    """A file with other content, for the while."""

    def __init__(self, path, data):
        self._path = path
        self._data = data

    def __enter__(self):
        self._before = self._path.read_bytes()
        if self._data is None:
            self._path.unlink()
        else:
            self._path.write_bytes(self._data)

    def __exit__(self, *_):
        self._path.write_bytes(self._before)


def flipped(data, at, bits):
    return data[:at] + bytes([data[at] ^ bits]) + data[at + 1 :]


def payload_places(data):
    """The places in a pack that are neither in its head nor in those of its blobs."""
    at = pack_format.HEAD_BYTES
    while at < len(data):
        head = pack_format.decode_blob_head(data[at : at + pack_format.BLOB_HEAD_BYTES])
        start = at + pack_format.BLOB_HEAD_BYTES
        at = start + head.stored_bytes
        yield from range(start, at)


@pytest.mark.parametrize("kind", ["repository", "condemned", "segment", "map", "pack"])
async def test_a_flipped_bit_is_found_or_does_not_matter(laboratory, kind):
    for path in laboratory.files[kind]:
        data = path.read_bytes()
        payload = set(payload_places(data)) if kind == "pack" else set()
        for at in range(len(data)):
            is_in_blob = kind == "pack" and at >= pack_format.HEAD_BYTES
            with Damaged(path, flipped(data, at, 1 << at % 8)):
                count = await laboratory.read()
                # What quick finds, full finds too: it begins with the same.
                is_found = await laboratory.is_found(quick=not is_in_blob)
                assert is_found or (at in payload and count == len(IMAGES)), f"{path} at {at}"


async def test_each_bit_of_what_is_stored_of_a_chunk_is_found_or_does_not_matter(laboratory):
    """Those of the first frame: each that is not seen leaves the chunk as it is."""
    path = laboratory.packs[0]
    data = path.read_bytes()
    places = list(payload_places(data))
    unseen = 0
    for at in places[: len(places) // 2]:
        for bit in range(8):
            with Damaged(path, flipped(data, at, 1 << bit)):
                if not await laboratory.is_found():
                    unseen += 1
                    assert await laboratory.read() == len(IMAGES)
    assert unseen <= UNSEEN_BITS


@pytest.mark.parametrize("kind", ["repository", "condemned", "segment", "map", "pack"])
async def test_a_file_that_is_cut_off_is_found_at_once(laboratory, kind):
    for path in laboratory.files[kind]:
        data = path.read_bytes()
        # A step that meets every place in a record of 44 bytes, an entry of 48 and a head of 64.
        for length in range(0, len(data), 5):
            with Damaged(path, data[:length]):
                assert await laboratory.is_found(quick=True), f"{path} of {length} bytes"
                await laboratory.read()


@pytest.mark.parametrize("kind", ["repository", "segment", "map", "pack"])
async def test_a_file_that_is_gone_is_found_at_once(laboratory, kind):
    for path in laboratory.files[kind]:
        with Damaged(path, None):
            assert await laboratory.is_found(quick=True)
            assert await laboratory.is_found()
            assert await laboratory.read() < len(IMAGES)


@pytest.mark.parametrize("kind", ["repository", "condemned", "segment", "map", "pack"])
async def test_what_is_behind_the_end_is_found_or_does_not_matter(laboratory, kind):
    for path in laboratory.files[kind]:
        for more in (b"\0", b"\n", os.urandom(100)):
            with Damaged(path, path.read_bytes() + more):
                is_found = await laboratory.is_found()
                assert is_found == (kind != "pack"), "behind a pack's last chunk nobody looks"
                assert is_found or await laboratory.read() == len(IMAGES)

"""images/sinks/sparse.py: past the page cache where that can be, and byte for byte either way."""

import os

import pytest

from page_cache import cached_bytes
from virtbackup_async.errors import StorageError
from virtbackup_async.files.direct_io import aligned_bytes, lies_on_a_device, open_direct
from virtbackup_async.images.buffers import BUFFER_BYTES, BufferPool
from virtbackup_async.images.sinks import at_offsets
from virtbackup_async.images.sinks.sparse import write_sparse
from virtbackup_async.images.sources.file import open_image_stream

MIB = 1 << 20


@pytest.fixture
def image(tmp_path):
    """Ends within a page, and has a hole that begins within one."""
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.write(os.urandom(9 * MIB + 700))
        file.seek(30 * MIB)
        file.write(os.urandom(11 * MIB + 5000))
    return path


async def copied(image, copy, on_progress=lambda _: None):
    async with open_image_stream(image, BufferPool()) as stream:
        return await write_sparse(stream, copy, on_progress)


def data_ranges(path):
    """Where a file has data, as (start, end) in bytes."""
    ranges, end = [], 0
    with path.open("rb") as file:
        while end < path.stat().st_size:
            start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            ranges.append((start, end))
    return ranges


async def test_nothing_of_it_is_ever_in_the_page_cache(tmp_path):
    (tmp_path / "image").write_bytes(os.urandom(MIB) * 40)
    with (tmp_path / "image").open("rb") as file:
        if not lies_on_a_device(file.fileno()):
            pytest.skip("the temporary directory is not on the file system of a block device")
    copy, seen = tmp_path / "copy", []
    assert await copied(tmp_path / "image", copy, lambda _: seen.append(cached_bytes(copy)))
    assert seen == [0] * 10
    assert copy.read_bytes() == (tmp_path / "image").read_bytes()


async def test_odd_ends_and_holes_are_as_they_were(image, tmp_path):
    copy = tmp_path / "copy"
    written_bytes = await copied(image, copy)
    assert copy.read_bytes() == image.read_bytes()
    assert data_ranges(copy) == data_ranges(image)
    # Not compared: what lies in many pieces on the disk takes a block more to list them.
    assert copy.stat().st_blocks * 512 < 21 * MIB
    assert written_bytes < 21 * MIB


async def test_progress_never_goes_back(image, tmp_path):
    seen = []
    await copied(image, tmp_path / "copy", seen.append)
    assert seen == sorted(seen)
    assert seen[-1] >= 20 * MIB


@pytest.mark.parametrize("lies", [True, False])
async def test_what_cannot_be_written_directly_goes_through_the_cache(
    image, tmp_path, monkeypatch, lies
):
    monkeypatch.setattr(at_offsets, "lies_on_a_device", lambda _fd: lies)
    # Memory at an odd address: the kernel itself refuses to take it from there.
    monkeypatch.setattr(BufferPool, "acquire", odd_buffer)
    monkeypatch.setattr(BufferPool, "release", lambda _pool, _buffer: None)
    copy = tmp_path / "copy"
    await copied(image, copy)
    assert copy.read_bytes() == image.read_bytes()


async def odd_buffer(_pool):
    return memoryview(bytearray(BUFFER_BYTES + 1))[1:]


async def test_a_device_that_is_broken_is_told(image, tmp_path, monkeypatch):
    """A write that fails for another reason than its alignment is not tried otherwise."""

    def read_only(fd, _access):
        return open_direct(fd, os.O_RDONLY)

    monkeypatch.setattr(at_offsets, "lies_on_a_device", lambda _fd: True)
    monkeypatch.setattr(at_offsets, "open_direct", read_only)
    with pytest.raises(StorageError, match="cannot write"):
        await copied(image, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_alignment():
    assert aligned_bytes(0, 4096) == 4096
    assert aligned_bytes(512, 4096) == 0
    assert aligned_bytes(4096, 4097) == 4096
    assert aligned_bytes(0, 4095) == 0


def test_a_file_in_memory_lies_on_no_device():
    fd = os.memfd_create("file")
    try:
        assert not lies_on_a_device(fd)
    finally:
        os.close(fd)

"""images/stream.py, source.py and sparse.py: bounded, in order, and nothing left behind."""

import os
import threading
from pathlib import Path

import pytest
from anyio import CancelScope
from anyio.lowlevel import checkpoint

from page_cache import cached_bytes, drop_from_cache
from virtbackup_async.errors import ImageError, StorageError
from virtbackup_async.images.buffers import BUFFER_BYTES, BufferPool
from virtbackup_async.images.digest import LEAF_BYTES, ImageDigest, leaf_of
from virtbackup_async.images.sinks.sparse import write_sparse
from virtbackup_async.images.sources import file
from virtbackup_async.images.sources.file import open_image_stream
from virtbackup_async.images.stream import open_stream
from virtbackup_async.model.extent import Extent

MIB = 1 << 20


class Reader:
    """MiB n is full of the byte n + 1; it can break."""

    def __init__(self, chunks, *, breaks_at=None):
        self.size_bytes = chunks * MIB
        self.data_extents = (Extent(0, self.size_bytes),)
        self.offsets = []
        self.threads = set()
        self._breaks_at = breaks_at

    def read(self, wanted):
        self.threads.add(threading.get_ident())
        for offset, target in wanted:
            self.offsets.append(offset)
            if offset == self._breaks_at:
                raise ImageError("broken")
            for start in range(0, len(target), MIB):
                target[start : start + MIB] = bytes([(offset + start) // MIB + 1]) * MIB


@pytest.fixture
def buffers():
    pool = BufferPool(8 * BUFFER_BYTES)
    yield pool
    assert pool.available == 8


async def collect(stream):
    """Where each MiB is that came, and what its first byte is."""
    return [
        (chunk.offset + start, chunk.data[start])
        async for chunk in stream.pieces()
        for start in range(0, len(chunk.data), MIB)
    ]


async def extend(seen, stream):
    async for chunk in stream.pieces():
        seen += [chunk.offset]


async def test_chunks_come_in_order_and_are_read_in_threads(buffers):
    reader = Reader(20)
    async with open_stream(reader, buffers, "test") as stream:
        assert await collect(stream) == [(n * MIB, n + 1) for n in range(20)]
    assert threading.get_ident() not in reader.threads


async def test_one_buffer_is_enough():
    pool = BufferPool(1)
    async with open_stream(Reader(5), pool, "test") as stream:
        assert len(await collect(stream)) == 5
    assert pool.available == 1


async def test_nothing_is_read_before_the_first_step(buffers):
    reader = Reader(3)
    async with open_stream(reader, buffers, "test"):
        for _ in range(50):
            await checkpoint()
        assert buffers.available == 8
    assert reader.offsets == []


async def test_reading_stays_a_few_chunks_ahead(buffers):
    reader = Reader(50)
    async with open_stream(reader, buffers, "test") as stream:
        await anext(stream.pieces())
        while len(reader.offsets) < 4:
            await checkpoint()
        for _ in range(50):
            await checkpoint()
        # One buffer is with us, one is queued, one hashed and one read: they wait for their places.
        assert len(reader.offsets) == 4
        assert buffers.available == 4


async def test_chunk_stays_valid_until_the_next_step(buffers):
    async with open_stream(Reader(50), buffers, "test") as stream:
        async for chunk in stream.pieces():
            content = bytes(chunk.data)
            for _ in range(5):
                await checkpoint()
            assert chunk.data == content


async def test_leaving_early_gives_all_buffers_back_each_once(buffers):
    reader = Reader(50)
    reader.read = fill_with_x
    async with open_stream(reader, buffers, "test") as stream:
        async for _ in stream.pieces():
            break
    # They are equal, but not the same.
    held = [await buffers.acquire() for _ in range(8)]
    assert len(set(map(id, held))) == 8
    for buffer in held:
        buffers.release(buffer)


def fill_with_x(wanted):
    for _, target in wanted:
        target[:] = b"x" * len(target)


async def test_error_of_the_body_comes_out_bare(buffers):
    async def fail_at_the_first_chunk():
        async with open_stream(Reader(50), buffers, "test") as stream:
            async for _ in stream.pieces():
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_at_the_first_chunk()


async def test_error_of_the_reader_comes_at_its_place(buffers):
    seen = []
    async with open_stream(Reader(9, breaks_at=4 * MIB), buffers, "test") as stream:
        with pytest.raises(ImageError, match="broken"):
            await extend(seen, stream)
    assert seen == [0]


async def test_digest_is_not_known_before_the_end(buffers):
    async with open_stream(Reader(9), buffers, "test") as stream:
        await anext(stream.pieces())
        with pytest.raises(RuntimeError):
            _ = stream.digest


async def test_cancelled_step_gives_all_buffers_back(buffers):
    async with open_stream(Reader(50), buffers, "test") as stream:
        with CancelScope() as scope:
            scope.cancel()
            await anext(stream.pieces())
        assert scope.cancelled_caught


async def test_zeros_and_holes_do_not_come(buffers, tmp_path):
    image = tmp_path / "image"
    image.write_bytes(bytes(3 * MIB) + b"x")
    os.truncate(image, 9 * MIB)
    async with open_image_stream(image, buffers) as stream:
        assert [offset for offset, _ in await collect(stream)] == [3 * MIB]
        assert stream.data_bytes >= 3 * MIB + 1


async def test_image_that_gets_shorter_is_said(buffers, tmp_path):
    image = tmp_path / "image"
    image.write_bytes(b"x" * 3 * MIB)
    async with open_image_stream(image, buffers) as stream:
        os.truncate(image, MIB + 1)
        with pytest.raises(ImageError, match="image ends early"):
            await collect(stream)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["directory", "pipe"])
async def test_what_is_no_image_is_refused(buffers, tmp_path, make):
    make(tmp_path / "x")
    with pytest.raises(ImageError, match="not a regular file"):
        async with open_image_stream(tmp_path / "x", buffers):
            pass


async def test_link_is_followed_only_where_it_may_be(buffers, tmp_path):
    (tmp_path / "image").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "image")
    async with open_image_stream(tmp_path / "link", buffers) as stream:
        assert stream.size_bytes == 1
    with pytest.raises(ImageError, match="cannot open"):
        async with open_image_stream(tmp_path / "link", buffers, follow=False):
            pass


async def test_no_descriptor_is_left_open(buffers, tmp_path):
    (tmp_path / "image").write_bytes(b"x" * 3 * MIB)
    before = open_descriptors()
    async with open_image_stream(tmp_path / "image", buffers) as stream:
        await write_sparse(stream, tmp_path / "copy", lambda _: None)
    assert open_descriptors() == before


def open_descriptors():
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


async def test_copy_that_breaks_leaves_no_file(buffers, tmp_path):
    async with open_stream(Reader(9, breaks_at=4 * MIB), buffers, "test") as stream:
        with pytest.raises(ImageError, match="broken"):
            await write_sparse(stream, tmp_path / "copy", lambda _: None)
    assert list(tmp_path.iterdir()) == []


async def test_cancelled_copy_leaves_no_file(buffers, tmp_path):
    async with open_stream(Reader(9), buffers, "test") as stream:
        with CancelScope() as scope:
            await write_sparse(stream, tmp_path / "copy", lambda _: scope.cancel())
    assert scope.cancelled_caught
    assert list(tmp_path.iterdir()) == []


async def test_copy_of_an_impossible_size_leaves_no_file(buffers, tmp_path):
    reader = Reader(0)
    reader.size_bytes = 1 << 62
    async with open_stream(reader, buffers, "test") as stream:
        with pytest.raises(StorageError, match="cannot create"):
            await write_sparse(stream, tmp_path / "copy", lambda _: None)
    assert list(tmp_path.iterdir()) == []


async def test_pool_makes_wait_and_reuses(buffers):
    held = [await buffers.acquire() for _ in range(8)]
    with CancelScope() as scope:
        scope.cancel()
        await buffers.acquire()
    assert scope.cancelled_caught
    buffers.release(held.pop())
    held.append(await buffers.acquire())
    for buffer in held:
        buffers.release(buffer)


@pytest.fixture
def cold(tmp_path):
    """An image on a disk that is not in the page cache."""
    path = tmp_path / "cold"
    path.write_bytes(os.urandom(20 * MIB + 5000))
    if cached_bytes(drop_from_cache(path)):
        pytest.skip("its file system is nothing but page cache")
    return path


async def read_all(path, buffers):
    async with open_image_stream(path, buffers) as stream:
        pieces = [bytes(chunk.data) async for chunk in stream.pieces()]
    assert b"".join(pieces) == path.read_bytes()


async def test_reading_leaves_the_page_cache_alone(buffers, cold):
    async with open_image_stream(cold, buffers) as stream:
        await collect(stream)
    # The end that is no multiple of a page comes through the cache.
    assert cached_bytes(cold) <= 4 * MIB
    await read_all(cold, buffers)


async def test_what_was_cached_stays_so(buffers, cold):
    cold.read_bytes()
    before = cached_bytes(cold)
    await read_all(cold, buffers)
    assert cached_bytes(cold) >= before >= 20 * MIB


async def test_half_cached_image_comes_whole(buffers, cold):
    with cold.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        os.pread(file.fileno(), 7 * MIB, 3 * MIB)
    await read_all(cold, buffers)


async def test_unsaved_writes_are_read(buffers, cold):
    with cold.open("r+b", buffering=0) as file:
        file.seek(6 * MIB)
        file.write(b"new" * MIB)
        await read_all(cold, buffers)


def test_reading_goes_on_where_direct_reads_are_refused(cold):
    reader = file.ImageFile(cold, os.open(cold, os.O_RDONLY))
    target = memoryview(bytearray(MIB + 1))[1:]  # at an odd address: the kernel says EINVAL
    for offset in (0, MIB):
        reader.read([(offset, target)])
        assert target == cold.read_bytes()[offset : offset + MIB]
    reader.close()


async def test_what_the_source_has_hashed_is_not_hashed_again(buffers):
    asked = []

    def known_leaf(offset):
        asked.append(offset)
        return bytes(32) if offset == LEAF_BYTES else None

    async with open_stream(Reader(1), buffers, "vda", known_leaf=known_leaf) as stream:
        (leaves,) = [chunk.leaves async for chunk in stream.pieces()]
    hashed = leaf_of(b"\1" * LEAF_BYTES)
    assert leaves == (hashed, bytes(32), hashed, hashed)
    assert asked == [0, LEAF_BYTES, 2 * LEAF_BYTES, 3 * LEAF_BYTES]
    digest = ImageDigest(MIB)
    digest.add(0, b"".join(leaves))
    assert stream.digest == digest.finish()

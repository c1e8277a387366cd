"""images/stream.py, source.py and sparse.py: bounded, in order, and nothing left behind."""

import os
import threading
from pathlib import Path

import pytest
from anyio import CancelScope
from anyio.lowlevel import checkpoint

from virtbackup_async.errors import ImageError, StorageError
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.source import open_image_stream
from virtbackup_async.images.sparse import write_sparse
from virtbackup_async.images.stream import READ_AHEAD_CHUNKS, open_stream
from virtbackup_async.model.extent import Extent

MIB = 1 << 20


class Reader:
    """Chunk n is full of the byte n + 1; it can break, or hang until it is let go."""

    def __init__(self, chunks, *, breaks_at=None):
        self.size_bytes = chunks * MIB
        self.data_extents = (Extent(0, self.size_bytes),)
        self.offsets = []
        self.threads = set()
        self._breaks_at = breaks_at

    def read(self, offset, target):
        self.threads.add(threading.get_ident())
        self.offsets.append(offset)
        if offset == self._breaks_at:
            raise ImageError("broken")
        target[:] = bytes([offset // MIB + 1]) * len(target)


@pytest.fixture
def buffers():
    pool = BufferPool(8 * MIB)
    yield pool
    assert pool.available == 8


async def collect(stream):
    return [(chunk.offset, chunk.data[0]) async for chunk in stream.chunks()]


async def extend(seen, stream):
    async for chunk in stream.chunks():
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
        await anext(stream.chunks())
        while len(reader.offsets) < READ_AHEAD_CHUNKS + 1:
            await checkpoint()
        for _ in range(50):
            await checkpoint()
        # One is with us, a few are queued, one is ready and waits for its place.
        assert len(reader.offsets) <= READ_AHEAD_CHUNKS + 2


async def test_chunk_stays_valid_until_the_next_step(buffers):
    async with open_stream(Reader(50), buffers, "test") as stream:
        async for chunk in stream.chunks():
            content = bytes(chunk.data)
            for _ in range(5):
                await checkpoint()
            assert chunk.data == content


async def test_leaving_early_gives_all_buffers_back(buffers):
    async with open_stream(Reader(50), buffers, "test") as stream:
        async for _ in stream.chunks():
            break


async def test_error_of_the_body_comes_out_bare(buffers):
    async def fail_at_the_first_chunk():
        async with open_stream(Reader(50), buffers, "test") as stream:
            async for _ in stream.chunks():
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_at_the_first_chunk()


async def test_error_of_the_reader_comes_at_its_place(buffers):
    seen = []
    async with open_stream(Reader(9, breaks_at=4 * MIB), buffers, "test") as stream:
        with pytest.raises(ImageError, match="broken"):
            await extend(seen, stream)
    assert seen == [0, MIB, 2 * MIB, 3 * MIB]


async def test_digest_is_not_known_before_the_end(buffers):
    async with open_stream(Reader(9), buffers, "test") as stream:
        await anext(stream.chunks())
        with pytest.raises(RuntimeError):
            _ = stream.digest


async def test_cancelled_step_gives_all_buffers_back(buffers):
    async with open_stream(Reader(50), buffers, "test") as stream:
        with CancelScope() as scope:
            scope.cancel()
            await anext(stream.chunks())
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

"""Directory packages on file systems that reflink: real ones, on loop devices."""

import os
import subprocess

import pytest

import mounts
from page_cache import drop_from_cache
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.sinks.sparse import write_sparse
from virtbackup_async.images.sources.file import open_image_stream

MIB = 1 << 20


@pytest.fixture(name="mounted", params=["btrfs", "xfs"])
def _mounted(request, tmp_path):
    with mounts.mounted(request.param, tmp_path, 400) as place:
        yield place


@pytest.fixture
def image(mounted):
    path = mounted / "image"
    with path.open("wb") as file:
        file.truncate(80 * MIB + 5)
        for start in (0, 30 * MIB):
            file.seek(start)
            file.write(os.urandom(20 * MIB))
    return drop_from_cache(path)


async def copy(image, path):
    async with open_image_stream(image, BufferPool()) as stream:
        stored_bytes = await write_sparse(stream, path, lambda _: None)
        return stored_bytes, stream.digest


def used_bytes(place):
    os.sync()
    status = os.statvfs(place)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


async def test_copy_shares_the_blocks_of_the_image(mounted, image):
    before = used_bytes(mounted)
    stored_bytes, digest = await copy(image, mounted / "copy")
    assert used_bytes(mounted) - before < 2 * MIB
    assert stored_bytes == 40 * MIB
    assert (mounted / "copy").read_bytes() == image.read_bytes()
    assert (mounted / "copy").stat().st_mode & 0o777 == 0o600
    async with open_image_stream(mounted / "copy", BufferPool()) as stream:
        async for _ in stream.pieces():
            pass
        assert stream.digest == digest


async def test_copy_stays_when_the_image_changes(mounted, image):
    content = image.read_bytes()
    await copy(image, mounted / "copy")
    with image.open("r+b") as file:
        file.write(os.urandom(MIB))
    assert (mounted / "copy").read_bytes() == content


async def test_copy_to_another_file_system_is_written(image, tmp_path):
    stored_bytes, _ = await copy(image, tmp_path / "copy")
    assert stored_bytes == 40 * MIB
    assert (tmp_path / "copy").read_bytes() == image.read_bytes()


async def test_copy_of_an_image_without_checksums_is_written(mounted):
    """Btrfs refuses to clone between files with and without checksums."""
    image = mounted / "image"
    image.touch()
    chattr = subprocess.run(["chattr", "+C", image], check=False, capture_output=True)
    if chattr.returncode != 0:
        pytest.skip("only btrfs has files without checksums")
    image.write_bytes(b"x" * MIB)
    assert (await copy(image, mounted / "copy"))[0] == MIB
    assert (mounted / "copy").read_bytes() == image.read_bytes()


async def test_existing_file_is_not_cloned_over(mounted, image):
    (mounted / "copy").write_bytes(b"mine")
    with pytest.raises(Exception, match="cannot create"):
        await copy(image, mounted / "copy")
    assert (mounted / "copy").read_bytes() == b"mine"

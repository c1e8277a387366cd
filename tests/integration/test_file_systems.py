"""Images written into real file systems, past the page cache or through it, and full ones."""

import os

import pytest

import mounts
from page_cache import cached_bytes
from virtbackup_async.errors import StorageError
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.sinks.sparse import write_sparse
from virtbackup_async.images.sources.file import open_image_stream
from virtbackup_async.model.backup import Packager
from virtbackup_async.packagers.codecs.cpu_shares import CpuShares
from virtbackup_async.packagers.registry import open_writer

MIB = 1 << 20
PAST_THE_CACHE = {"ext4", "xfs"}


@pytest.fixture(params=["ext4", "xfs", "btrfs"])
def kind(request):
    return request.param


@pytest.fixture
def target(kind, tmp_path):
    with mounts.mounted(kind, tmp_path, 400) as place:
        yield place


@pytest.fixture
def make_image(tmp_path):
    def make(data_mib):
        path = tmp_path / "image"
        with path.open("wb") as file:
            file.truncate(900 * MIB + 5)
            for start in (0, 700 * MIB + 4096):
                file.seek(start)
                file.write(os.urandom(MIB) * (data_mib // 2))
        return path

    return make


async def copy(image, path, on_progress=lambda _: None):
    async with open_image_stream(image, BufferPool()) as stream:
        return await write_sparse(stream, path, on_progress)


async def pack(image, directory):
    name = "20260101-000000_1_web"
    async with (
        open_writer(Packager("tar"), directory, name, CpuShares(1)) as package,
        open_image_stream(image, BufferPool()) as stream,
    ):
        await package.add_disk("disk", stream, lambda _: None)
        await package.finish()


async def test_copy_is_the_image_and_does_not_stay_in_memory(kind, target, make_image):
    image, path, seen = make_image(80), target / "copy", []
    assert await copy(image, path, lambda _: seen.append(cached_bytes(path))) == 80 * MIB
    assert path.read_bytes() == image.read_bytes()
    assert path.stat().st_blocks * 512 < 90 * MIB
    if kind in PAST_THE_CACHE:
        assert max(seen) <= 4096  # its odd end


@pytest.mark.parametrize("write", [copy, pack])
async def test_full_target_is_told_and_nothing_is_left(target, make_image, write):
    image, before = make_image(600), sorted(target.iterdir())
    path = target / "copy" if write is copy else target
    with pytest.raises(StorageError, match="no space left"):
        await write(image, path)
    assert sorted(target.iterdir()) == before
    assert await copy(make_image(80), target / "copy") == 80 * MIB

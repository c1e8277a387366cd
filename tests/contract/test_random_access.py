"""One suite for all packagers whose images can be read anywhere: it compares with a whole read."""

import random
import tracemalloc
from contextlib import asynccontextmanager

import pytest
from anyio import create_task_group

from fakes.packages import IMAGES, MIB, PACKAGERS, Package, in_package, make_image
from virtbackup_async.errors import CorruptError, DefinitionError, ImageError
from virtbackup_async.packagers.interface import RandomAccessReader

RANDOM = {name: PACKAGERS[name] for name in ("directory", "tar", "zstd", "zstd-3", "repository")}
MOST_BYTES = 700_000


@pytest.fixture(params=PACKAGERS)
def any_packager(request):
    return request.param


@pytest.fixture(params=RANDOM)
def package(request, tmp_path):
    package = Package(RANDOM[request.param], tmp_path / "target" / "web")
    package.directory.mkdir(parents=True)
    return package


@pytest.fixture
def image(tmp_path):
    return make_image(tmp_path / "image", 6 * MIB, [(0, 2 * MIB), (5 * MIB, 100)])


@asynccontextmanager
async def opened(package, file):
    async with package.reader() as reader, reader.open_image(file) as image:
        yield image


async def read_whole(package, file):
    """Read an image as restore does, and return its bytes, its extents and its digest."""
    async with package.reader() as reader, reader.open_disk(file) as stream:
        content = bytearray(stream.size_bytes)
        async for chunk in stream.pieces():
            content[chunk.offset : chunk.offset + len(chunk.data)] = chunk.data
        return bytes(content), stream.data_extents, stream.digest


async def test_these_packagers_can_be_read_anywhere(any_packager, image, tmp_path):
    package = Package(PACKAGERS[any_packager], tmp_path / "target" / "web")
    package.directory.mkdir(parents=True)
    await package.write(image)
    async with package.reader() as reader:
        assert isinstance(reader, RandomAccessReader)
    if any_packager in RANDOM:
        async with opened(package, in_package(image)) as found:
            assert found.size_bytes == 6 * MIB
        return
    with pytest.raises(ImageError, match="can only be read from front to back"):
        async with opened(package, in_package(image)):
            pytest.fail("a compressed archive is one long stream")


async def test_every_part_is_that_of_a_whole_read(package, tmp_path):
    images = [make_image(tmp_path / name, *shape) for name, shape in IMAGES.items()]
    await package.write(*images)
    rng = random.Random(3)
    for image in images:
        content, extents, digest = await read_whole(package, in_package(image))
        async with opened(package, in_package(image)) as found:
            assert found.size_bytes == len(content)
            assert found.digest in {None, digest}
            assert await found.extents() == extents
            for start, length in parts_of(len(content), rng):
                assert await found.read(start, length) == content[start : start + length]


def parts_of(size_bytes, rng):
    """Parts that begin and end anywhere, at the edges of chunks, and nowhere."""
    yield from ((0, 0), (size_bytes, 0), (0, min(size_bytes, MOST_BYTES)))
    edges = [edge for edge in range(0, size_bytes, MIB // 4) if edge]
    yield from ((edge - 1, min(2, size_bytes - edge + 1)) for edge in edges)
    for _ in range(20):
        start = rng.randint(0, size_bytes)
        yield start, rng.randint(0, min(MOST_BYTES, size_bytes - start))


async def test_what_is_in_no_extent_is_zeros(package, tmp_path):
    images = [make_image(tmp_path / name, *shape) for name, shape in IMAGES.items()]
    await package.write(*images)
    for image in images:
        async with opened(package, in_package(image)) as found:
            content = bytearray(await found.read(0, found.size_bytes))
            end = 0
            for extent in await found.extents():
                assert end <= extent.start < extent.end <= found.size_bytes
                content[extent.start : extent.end] = bytes(extent.length)
                end = extent.end
            assert not any(content)


async def test_several_tasks_read_at_once(package, image):
    await package.write(image)
    content = image.read_bytes()
    rng = random.Random(5)
    wrong = []

    async def read_some(found, parts):
        for start, length in parts:
            if await found.read(start, length) != content[start : start + length]:
                wrong.append((start, length))

    async with opened(package, in_package(image)) as found, create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(read_some, found, [*parts_of(len(content), rng)])
    assert wrong == []


@pytest.mark.parametrize(
    ("offset", "length"), [(-1, 1), (0, -1), (6 * MIB, 1), (0, 6 * MIB + 1), (7 * MIB, 0)]
)
async def test_what_is_outside_of_the_image_is_refused(package, image, offset, length):
    await package.write(image)
    async with opened(package, in_package(image)) as found:
        with pytest.raises(ValueError, match="of an image of 6291456"):
            await found.read(offset, length)


async def test_memory_does_not_grow_with_what_is_read(package, tmp_path):
    image = make_image(tmp_path / "image", 32 * MIB, [(0, 32 * MIB)])
    await package.write(image)
    async with opened(package, in_package(image)) as found:
        tracemalloc.start()
        try:
            for offset in range(0, 32 * MIB, MIB // 8):
                await found.read(offset, MIB // 8)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 10 * MIB


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd", "a\0b"])
async def test_only_plain_names_are_opened(package, name):
    with pytest.raises(DefinitionError):
        async with opened(package, name):
            pass


async def test_a_missing_image_is_corrupt(package):
    with pytest.raises(CorruptError):
        async with opened(package, "nothing"):
            pass


async def test_a_link_is_not_followed(package, image, tmp_path):
    await package.write(image)
    (path,) = package.paths(in_package(image))
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CorruptError):
        async with opened(package, in_package(image)):
            pass


async def test_a_file_that_gets_shorter_is_corrupt(package, image):
    await package.write(image)
    (path,) = {*package.directory.parent.rglob("*.pack")} or package.paths(in_package(image))
    async with opened(package, in_package(image)) as found:
        path.write_bytes(path.read_bytes()[: MIB // 2])
        with pytest.raises(CorruptError, match=str(path)):
            await found.read(5 * MIB, 100)


@pytest.mark.parametrize("package", ["repository"], indirect=True)
async def test_damage_is_never_handed_out_where_the_digest_is_known(package, tmp_path):
    """And it costs no more than its chunk."""
    image = make_image(tmp_path / "image", 3 * MIB, [(0, 3 * MIB)])
    await package.write(image)
    content = image.read_bytes()
    async with opened(package, in_package(image)) as found:
        assert found.digest is not None
    (pack,) = package.directory.parent.rglob("*.pack")
    damage(pack, pack.stat().st_size // 2)
    lost = 0
    async with opened(package, in_package(image)) as found:
        for start in range(0, len(content), 65536):
            try:
                assert await found.read(start, 65536) == content[start : start + 65536]
            except CorruptError:
                lost += 65536
    assert lost == MIB // 4


def damage(path, place):
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))

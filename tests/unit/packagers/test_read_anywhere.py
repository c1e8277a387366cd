"""Random access to tar and zstd packages that are foreign, damaged or hostile.

tests/contract/test_random_access.py has what all packagers do.
"""

import tarfile

import pytest
import zstandard

from fakes.packages import MIB, NAME, PACKAGERS, Package, in_package, make_image
from virtbackup_async.errors import CorruptError, ImageError
from virtbackup_async.packagers.zstd import reader as zstd_reader
from virtbackup_async.packagers.zstd.frame import HEADER_BYTES

FILE = f"{NAME}_image.raw"


@pytest.fixture
def image(tmp_path):
    return make_image(tmp_path / "image", 40 * MIB, [(0, 9 * MIB), (39 * MIB, 100)])


@pytest.fixture(params=["tar", "zstd"])
def package(request, tmp_path):
    package = Package(PACKAGERS[request.param], tmp_path / "target" / "web")
    package.directory.mkdir(parents=True)
    return package


@pytest.fixture
def zstd(tmp_path):
    package = Package(PACKAGERS["zstd"], tmp_path / "target" / "web")
    package.directory.mkdir(parents=True)
    return package


def compressed(data, **options):
    return zstandard.ZstdCompressor(**options).compress(data)


@pytest.mark.parametrize("options", [{}, {"write_content_size": False}])
async def test_a_frame_of_another_program_can_only_be_read_in_order(zstd, options):
    (path,) = zstd.paths(FILE)
    path.write_bytes(compressed(b"x" * MIB, **options))
    async with zstd.reader() as reader:
        with pytest.raises(ImageError, match=f"{FILE} in package {path} can only be read from"):
            async with reader.open_image(FILE):
                pytest.fail("it has no map")


@pytest.mark.parametrize(
    "content",
    [b"", b"no zstd frame at all", compressed(b"x" * MIB)[:20]],
    ids=["empty", "text", "cut"],
)
async def test_a_file_that_is_no_frame_is_corrupt_or_refused(zstd, content):
    (path,) = zstd.paths(FILE)
    path.write_bytes(content)
    async with zstd.reader() as reader:
        with pytest.raises((CorruptError, ImageError)):
            async with reader.open_image(FILE):
                pytest.fail("there is no frame")


async def test_damage_to_one_run_costs_no_other_run(zstd, image):
    await zstd.write(image)
    (path,) = zstd.paths(in_package(image))
    content, packed = image.read_bytes(), bytearray(path.read_bytes())
    packed[HEADER_BYTES : HEADER_BYTES + 3] = b"\xff" * 3  # no block of any frame begins so
    path.write_bytes(packed)
    async with zstd.reader() as reader, reader.open_image(in_package(image)) as found:
        with pytest.raises(CorruptError, match=str(path)):
            await found.read(0, 9 * MIB)
        assert await found.read(8 * MIB, MIB) == content[8 * MIB : 9 * MIB]
        with pytest.raises(CorruptError):
            await found.read(0, 100)
        assert await found.read(39 * MIB, 200) == content[39 * MIB : 39 * MIB + 200]


async def test_a_run_is_decompressed_once_for_reads_that_follow_each_other(
    zstd, image, monkeypatch
):
    await zstd.write(image)
    read, decompressed = zstd_reader.read_piece, []

    def counted(fd, piece, room):
        decompressed.append(piece.start)
        return read(fd, piece, room)

    monkeypatch.setattr(zstd_reader, "read_piece", counted)
    async with zstd.reader() as reader, reader.open_image(in_package(image)) as found:
        for offset in range(0, 9 * MIB, 65536):
            await found.read(offset, 65536)
        await found.read(20 * MIB, MIB)
    assert decompressed == sorted(set(decompressed))


async def test_zeros_between_extents_are_not_read_from_the_package(package, image):
    await package.write(image)
    async with package.reader() as reader, reader.open_image(in_package(image)) as found:
        (path,) = package.paths(in_package(image))
        path.write_bytes(b"")
        assert await found.read(20 * MIB, MIB) == bytes(MIB)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE])
async def test_a_member_that_is_no_file_is_corrupt(tmp_path, kind):
    package = Package(PACKAGERS["tar"], tmp_path / "target" / "web")
    package.directory.mkdir(parents=True)
    (path,) = package.paths()
    info = tarfile.TarInfo(FILE)
    info.type, info.linkname = kind, "/etc/passwd"
    with tarfile.open(path, "w") as archive:
        archive.addfile(info)
    async with package.reader() as reader:
        with pytest.raises(CorruptError, match="not a regular file"):
            async with reader.open_image(FILE):
                pytest.fail("it is no image")

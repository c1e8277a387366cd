"""One suite for all packagers: what goes in comes out, and what fails leaves nothing behind."""

import os
import shutil
import subprocess
import tarfile
from contextlib import asynccontextmanager

import pytest
from anyio import CancelScope, create_task_group

from fakes.packages import IMAGES, MIB, NAME, PACKAGERS, Package, in_package, make_image
from virtbackup_async.errors import CorruptError, DefinitionError, ImageError, StorageError
from virtbackup_async.images.buffers import BUFFER_BYTES, BufferPool
from virtbackup_async.images.sinks.sparse import write_sparse
from virtbackup_async.images.stream import open_stream
from virtbackup_async.model.extent import Extent
from virtbackup_async.model.packager import Location
from virtbackup_async.packagers.registry import (
    remove_package,
)


@pytest.fixture(params=PACKAGERS)
def packager(request):
    return PACKAGERS[request.param]


@pytest.fixture
def package(packager, tmp_path):
    package = Package(packager, tmp_path / "target" / "web")
    package.directory.mkdir(parents=True)
    yield package
    assert package.buffers.available == 8, "a buffer was not given back"


@pytest.fixture
def images(tmp_path):
    return [make_image(tmp_path / name, *shape) for name, shape in IMAGES.items()]


@pytest.fixture
def image(tmp_path):
    return make_image(tmp_path / "image", 6 * MIB, [(0, 2 * MIB), (5 * MIB, 100)])


def used_bytes(path):
    return path.stat().st_blocks * 512


async def test_what_goes_in_comes_out_with_its_holes(package, images, tmp_path):
    added = await package.write(*images)
    for image in images:
        restored = tmp_path / "restored"
        stream = await package.restore(in_package(image), restored)
        assert restored.read_bytes() == image.read_bytes(), image.name
        # The file system needs some blocks for the map of many extents.
        assert used_bytes(restored) <= used_bytes(image) + 32768, image.name
        assert stream.digest == added[image][1].digest
        restored.unlink()


async def test_files_lists_what_is_in_the_package(package, images):
    await package.write(*images)
    async with package.reader() as reader:
        assert await reader.files() == tuple(sorted(map(in_package, images)))


async def test_package_is_its_named_files_private_and_nothing_else(package, image):
    await package.write(image)
    paths = package.paths(in_package(image))
    assert package.left() == [path.name for path in paths]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in paths)


async def test_stored_bytes_add_up_to_the_package(package, images):
    added = await package.write(*images)
    stored = sum(stored for stored, _ in added.values())
    files = map(in_package, images)
    if package.packager.type == "directory":
        assert stored == sum(stream.data_bytes for _, stream in added.values())
    else:
        packs = package.directory.parent.rglob("*.pack")
        on_disk = sum(path.stat().st_size for path in (*package.paths(*files), *packs))
        assert 0 <= on_disk - stored <= tarfile.RECORDSIZE


async def test_progress_ascends_to_the_data_of_the_image(package, image):
    said: list[int] = []
    async with package.writer() as writer:
        _, stream = await package.add(writer, image, progress=said.append)
        await writer.finish()
    assert said == sorted(said)
    assert said[-1] == stream.data_bytes == 2 * MIB + 4096


async def test_zeros_that_are_stored_as_data_come_out_too(package, tmp_path):
    image = tmp_path / "zeros"
    image.write_bytes(b"a" + bytes(3 * MIB) + b"b" + bytes(2 * MIB))
    await package.write(image)
    await package.restore(in_package(image), tmp_path / "restored")
    assert (tmp_path / "restored").read_bytes() == image.read_bytes()


async def test_several_disks_at_once(package, images, tmp_path):
    async with package.writer() as writer:
        async with create_task_group() as tasks:
            for image in images:
                tasks.start_soon(package.add, writer, image)
        await writer.finish()
    async with package.reader() as reader, create_task_group() as tasks:
        for image in images:
            tasks.start_soon(restore_one, reader, image, tmp_path / f"restored-{image.name}")
    for image in images:
        assert (tmp_path / f"restored-{image.name}").read_bytes() == image.read_bytes()


async def restore_one(reader, image, path):
    async with reader.open_disk(in_package(image)) as stream:
        await write_sparse(stream, path, lambda _: None)


async def test_two_buffers_are_enough_for_many_disks(packager, images, tmp_path):
    package = Package(packager, tmp_path / "web")
    package.directory.mkdir()
    package.buffers = BufferPool(2 * BUFFER_BYTES)
    async with package.writer() as writer:
        async with create_task_group() as tasks:
            for image in images:
                tasks.start_soon(package.add, writer, image)
        await writer.finish()
    assert package.buffers.available == 2


class FailingReader:
    """An image that breaks after its first buffer."""

    size_bytes = 2 * BUFFER_BYTES
    data_extents = (Extent(0, size_bytes),)

    def read(self, wanted):
        for offset, target in wanted:
            if offset:
                raise ImageError("the disk broke")
            target[:] = os.urandom(len(target))


async def test_broken_source_leaves_nothing(package, image):
    async def write_a_whole_and_a_broken_disk():
        async with package.writer() as writer:
            await package.add(writer, image)
            async with open_stream(FailingReader(), package.buffers, "failing") as stream:
                await writer.add_disk("other", stream, lambda _: None)

    with pytest.raises(ImageError, match="the disk broke"):
        await write_a_whole_and_a_broken_disk()
    assert package.left() == []


async def test_cancelled_package_leaves_nothing(package, image):
    with CancelScope() as scope:
        async with package.writer() as writer:
            await package.add(writer, image)
            await package.add(writer, image, name="other", progress=lambda _: scope.cancel())
    assert scope.cancelled_caught
    assert package.left() == []


async def test_error_after_the_last_disk_leaves_nothing(package, image):
    async def finish_and_fail():
        async with package.writer() as writer:
            await package.add(writer, image)
            await writer.finish()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await finish_and_fail()
    assert package.left() == []


async def test_discard_may_be_called_again(package, image):
    async with package.writer() as writer:
        await package.add(writer, image)
        await writer.finish()
        await writer.discard()
        await writer.discard()
    assert package.left() == []


@asynccontextmanager
async def small_file_system(path):
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", path], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
async def test_full_target_is_said_and_leaves_nothing(packager, tmp_path):
    image = make_image(tmp_path / "image", 6 * MIB, [(0, 6 * MIB)])
    package = Package(packager, tmp_path / "small" / "web")
    async with small_file_system(package.directory.parent):
        package.directory.mkdir()
        with pytest.raises(StorageError, match="no space left"):
            await package.write(image)
        assert package.left() == []
    assert package.buffers.available == 8


async def test_existing_file_is_not_touched(package, image):
    (path,) = package.paths(in_package(image))
    path.write_text("mine")
    with pytest.raises(StorageError, match="File exists"):
        await package.write(image)
    assert path.read_text() == "mine"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd", "a\0b"])
async def test_only_plain_names_get_in_or_out(package, image, name):
    with pytest.raises(DefinitionError):
        await package.write(image, name=name)
    with pytest.raises(DefinitionError):
        await package.restore(name, package.directory / "out")
    assert package.left() == []


async def test_removed_by_names_alone_even_if_half_of_it_is_gone(package, images):
    await package.write(*images)
    files = [in_package(image) for image in images]
    package.paths(*files)[0].unlink()
    await remove_package(Location.below(package.directory, package.packager, NAME), files)
    assert package.left() == []


async def test_missing_package_is_corrupt(package, tmp_path):
    with pytest.raises(CorruptError):
        await package.restore("nothing", tmp_path / "out")
    assert not (tmp_path / "out").exists()


async def test_link_in_the_place_of_a_package_is_not_followed(package, image, tmp_path):
    await package.write(image)
    (path,) = package.paths(in_package(image))
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CorruptError):
        await package.restore(in_package(image), tmp_path / "out")


# The length of a plain file is in the definition, not in the package: restore compares it.
@pytest.mark.parametrize("packager", list(PACKAGERS.values())[1:], ids=list(PACKAGERS)[1:])
@pytest.mark.parametrize("keep", [0, 0.01, 0.5, 0.98])
async def test_package_that_is_cut_off_is_corrupt(package, tmp_path, keep):
    image = make_image(tmp_path / "image", 3 * MIB, [(0, 3 * MIB)])
    await package.write(image)
    (path,) = package.paths(in_package(image))
    os.truncate(path, int(path.stat().st_size * keep))
    with pytest.raises(CorruptError, match=str(path)):
        await package.restore(in_package(image), tmp_path / "out")
    assert not (tmp_path / "out").exists()


async def test_flipped_bit_never_goes_unseen(package, image, tmp_path):
    added = await package.write(image)
    (path,) = package.paths(in_package(image))
    place = min(MIB, path.stat().st_size // 2)
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))
    try:
        stream = await package.restore(in_package(image), tmp_path / "out")
    except CorruptError:
        return
    assert stream.digest != added[image][1].digest


def tool_that_tests(path):
    testers = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zstd": "zstd"}
    return testers.get(path.suffix)


async def test_standard_tools_accept_the_package(package, images, tmp_path):
    await package.write(*images)
    for path in {*package.paths(*map(in_package, images))}:
        tool = tool_that_tests(path)
        if tool and shutil.which(tool):
            subprocess.run([tool, "-t", path], check=True, capture_output=True)
    if package.packager.type != "tar":
        return
    (archive,) = package.paths()
    out = tmp_path / "out"
    out.mkdir()
    done = subprocess.run(["tar", "-xf", archive, "-C", out], check=True, capture_output=True)
    assert done.stderr == b""
    with tarfile.open(archive) as opened:
        for image in images:
            content = image.read_bytes()
            assert (out / in_package(image)).read_bytes() == content
            member = opened.extractfile(in_package(image))
            assert member
            assert member.read() == content

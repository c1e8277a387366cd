"""The disks of a domain that is shut off, as files and through a real qemu-nbd."""

import subprocess

import pytest

from fakes.hypervisor import FakeDomain
from virtbackup_async.engine.point_in_time.offline import open_offline, open_offline_nbd
from virtbackup_async.errors import ChangedMeanwhileError, ImageError
from virtbackup_async.host.local import LocalHost
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.chains import image_chain
from virtbackup_async.model.domain import BackingImage, Disk
from virtbackup_async.model.extent import Extent
from virtbackup_async.model.tracking import Base, Tracked, Tracking

MIB = 1 << 20
BITMAP = "virtbackup-c"
BASE = Base("b", "b_vda.raw", BITMAP, 0)


def run(*words):
    subprocess.run([*map(str, words)], check=True, capture_output=True)


async def read(stream):
    return b"".join([bytes(piece.data) async for piece in stream.pieces()])


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "vda.img"
    path.write_bytes(b"x" * 4096)
    return path


@pytest.fixture
def chained(tmp_path):
    """An image with a dirty bitmap, on a backing file."""
    below, top = tmp_path / "below", tmp_path / "top"
    below.write_bytes(b"b" * MIB)
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", below, "-F", "raw", top)
    run("qemu-img", "bitmap", "--add", top, BITMAP)
    run("qemu-io", "-c", "write -P 1 0 64k", top)
    return top


@pytest.mark.parametrize("change", ["write", "start", "replace"])
async def test_an_image_that_changes_while_it_is_read_is_noticed(image, change):
    domain = FakeDomain({"vda": image}, active=False)
    disk = Disk("vda", image, "raw")
    async with open_offline(LocalHost(), domain, [disk]) as disks:
        await disks.release(disk)
        match change:
            case "write":
                with image.open("r+b") as file:
                    file.write(b"y")
            case "start":
                domain.live = dict(domain.own)
            case "replace":
                other = image.with_name("other")
                other.write_bytes(b"x" * 4096)
                other.replace(image)
        with pytest.raises(ChangedMeanwhileError, match=r"vda\.img changed"):
            await disks.release(disk)


async def test_an_offline_disk_is_read_as_the_file_it_is(image):
    disk = Disk("vda", image, "raw")
    domain = FakeDomain({"vda": image}, active=False)
    async with (
        open_offline(LocalHost(), domain, [disk]) as disks,
        disks.open_stream(disk, BackingImage(image, "raw"), BufferPool(), []) as stream,
    ):
        assert await read(stream) == image.read_bytes()
        assert disks.tracked(disk) is None
        assert disks.quiesced is None
    assert set(domain.calls) <= {"info"}


async def test_a_missing_image_is_an_error(tmp_path):
    disk = Disk("vda", tmp_path / "gone", "raw")
    with pytest.raises(ImageError, match="is gone"):
        async with open_offline(LocalHost(), FakeDomain({}, active=False), [disk]):
            pass


def opened(domain, chained, chain, tracking, *others):
    disk = Disk("vda", chained, "raw")
    return disk, open_offline_nbd(LocalHost(), domain, [disk, *others], {"vda": chain}, tracking)


async def test_qemu_nbd_shows_the_disk_and_what_its_bitmap_has(chained):
    domain = FakeDomain({"vda": chained}, active=False)
    tracking = Tracking({"vda": Tracked(BASE, None, checkpoint=True, image_id=None)})
    chain = await image_chain(chained, "qcow2")
    disk, opening = opened(domain, chained, chain, tracking)
    async with opening as disks:
        async with disks.open_stream(disk, chain[0], BufferPool(), []) as stream:
            assert await read(stream) == b"\1" * 65536 + b"b" * (MIB - 65536)
        tracked = disks.tracked(disk)
        assert tracked.checkpoint == BITMAP, "the next backup is based on the same checkpoint"
        async with tracked.open_changes(BufferPool(), []) as changed:
            assert list(changed.changed) == [Extent(0, 65536)]
        await disks.release(disk)


async def test_a_disk_without_a_chain_is_read_as_the_file_it_is(chained, image):
    domain = FakeDomain({"vda": chained, "vdb": image}, active=False)
    chain = await image_chain(chained, "qcow2")
    other = Disk("vdb", image, "luks")
    _, opening = opened(domain, chained, chain, Tracking(), other)
    async with opening as disks:
        assert disks.tracked(other) is None
        async with disks.open_stream(
            other, BackingImage(image, "luks"), BufferPool(), []
        ) as stream:
            assert await read(stream) == image.read_bytes()
        image.write_bytes(b"y")
        with pytest.raises(ChangedMeanwhileError, match=r"vda\.img changed"):
            await disks.release(other)


async def test_a_backing_file_that_changes_is_noticed(chained):
    domain = FakeDomain({"vda": chained}, active=False)
    chain = await image_chain(chained, "qcow2")
    disk, opening = opened(domain, chained, chain, Tracking())
    async with opening as disks:
        chained.with_name("below").write_bytes(b"c" * MIB)
        with pytest.raises(ChangedMeanwhileError, match="below changed"):
            await disks.release(disk)


@pytest.mark.parametrize("is_started", [False, True])
async def test_a_start_is_a_better_reason_than_an_image_that_cannot_be_opened(chained, is_started):
    domain = FakeDomain({"vda": chained}, active=False)
    broken = [BackingImage(chained.with_name("below"), "qcow2")]
    disk, opening = opened(domain, chained, broken, Tracking())
    async with opening as disks:
        if is_started:
            domain.live = dict(domain.own)
        with pytest.raises(ImageError) as raised:
            async with disks.open_stream(disk, broken[0], BufferPool(), []):
                pass
    assert isinstance(raised.value, ChangedMeanwhileError) == is_started

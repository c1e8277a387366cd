"""One suite for everything that claims to be the machine that has the images."""

import os
import stat

import pytest

from lab.process import run
from virtbackup_async.errors import ImageError, StorageError
from virtbackup_async.host.interface import ImageHost
from virtbackup_async.host.local import LocalHost
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.sources.nbd import open_nbd_stream
from virtbackup_async.model.domain import BackingImage, ToldChain

MIB = 1 << 20


@pytest.fixture(params=[LocalHost])
def host(request) -> ImageHost:
    return request.param()


@pytest.fixture
def base(tmp_path):
    """A raw image of 1 MiB."""
    path = tmp_path / "base.raw"
    path.write_bytes(b"\x01" * MIB)
    return BackingImage(path, "raw")


@pytest.fixture
def overlay(tmp_path, base):
    """An empty qcow2 overlay of it."""
    path = tmp_path / "base.raw.vbk-0a0b0c0d"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(base.path), str(path))
    return BackingImage(path, "qcow2")


def write(image, byte):
    run("qemu-io", "-f", "qcow2", "-c", f"write -P {byte} 0 64k", str(image.path))


async def test_a_file_is_there_until_it_is_removed(host, base):
    assert await host.exists(base.path)
    await host.remove(base.path)
    assert not await host.exists(base.path)
    await host.remove(base.path)


async def test_a_link_that_leads_nowhere_is_a_file_only_if_it_is_not_followed(host, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "gone")
    assert not await host.exists(link)
    assert await host.exists(link, follow=False)
    assert not await host.exists(link / "below")


async def test_what_cannot_be_looked_at_is_not_called_gone(host, tmp_path):
    around = tmp_path / "round"
    around.symlink_to(around)
    with pytest.raises(StorageError, match="round"):
        await host.exists(around)
    with pytest.raises(StorageError):
        await host.exists(tmp_path / ("n" * 300))


async def test_a_link_is_removed_and_what_it_leads_to_stays(host, base, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(base.path)
    await host.remove(link)
    assert await host.exists(base.path)
    assert not await host.exists(link, follow=False)


async def test_a_path_leads_where_its_links_lead(host, base, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    path = tmp_path / "link" / base.path.name
    assert await host.real_path(path) == base.path.resolve()
    await host.remove(base.path)
    assert await host.real_path(path) == base.path.parent.resolve() / base.path.name


async def test_a_removal_that_fails_is_told(host, tmp_path):
    (tmp_path / "full" / "file").mkdir(parents=True)
    with pytest.raises(StorageError, match="full"):
        await host.remove(tmp_path / "full")


async def test_an_image_that_cannot_be_opened_is_told(host, base, tmp_path):
    await host.check_readable(base.path)
    with pytest.raises(ImageError, match="No such file"):
        await host.check_readable(tmp_path / "gone")


async def test_nobody_waits_for_the_writer_of_a_fifo(host, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    await host.check_readable(tmp_path / "fifo")
    with pytest.raises(ImageError, match="neither a file nor a block device"):
        await host.chain(BackingImage(tmp_path / "fifo", "raw"))


async def test_room_is_what_an_ordinary_user_has(host, tmp_path):
    status = os.statvfs(tmp_path)
    free_bytes = await host.free_bytes(tmp_path)
    assert abs(free_bytes - status.f_bavail * status.f_frsize) < 1 << 30
    with pytest.raises(StorageError, match="gone"):
        await host.free_bytes(tmp_path / "gone")


async def test_a_signature_changes_with_every_write_of_the_same_length(host, base):
    before = await host.signature(base.path)
    assert await host.signature(base.path) == before
    with base.path.open("r+b") as file:
        file.write(b"\x02")
    os.utime(base.path, ns=(0, 0))  # whoever hides it by the time cannot hide the change of it
    assert await host.signature(base.path) != before
    await host.remove(base.path)
    with pytest.raises(ImageError, match="is gone"):
        await host.signature(base.path)


async def test_an_image_is_the_same_while_it_is_written_to_and_another_once_replaced(
    host, base, tmp_path
):
    before = await host.image_id(base.path)
    base.path.write_bytes(b"\x02" * MIB)
    assert await host.image_id(base.path) == before
    other = tmp_path / "other"
    other.write_bytes(b"\x02" * MIB)
    other.rename(base.path)
    assert await host.image_id(base.path) != before
    assert await host.image_id(tmp_path / "gone") is None


async def test_a_backing_image_is_another_once_it_was_written_to(host, base):
    before = await host.backing_id(base, with_times=True)
    without = await host.backing_id(base, with_times=False)
    base.path.write_bytes(b"\x02" * MIB)
    os.utime(base.path, ns=(0, 0))
    assert await host.backing_id(base, with_times=True) != before
    assert await host.backing_id(base, with_times=False) == without


async def test_a_header_is_read_in_the_format_that_was_given(host, base, overlay):
    info = await host.info(overlay)
    assert (info.virtual_size, info.backing_filename) == (MIB, str(base.path))
    assert (await host.info(BackingImage(overlay.path, "raw"))).backing_filename is None
    with pytest.raises(ImageError):
        await host.info(BackingImage(base.path, "qcow2"))


async def test_a_head_says_what_it_can(host, base, overlay, tmp_path):
    head = await host.head(overlay.path)
    assert (head.version, head.has_backing) == (3, True)
    assert await host.head(base.path) is None
    assert await host.head(tmp_path / "gone") is None


async def test_a_chain_is_found_by_the_headers_and_by_what_was_told(host, base, overlay):
    assert await host.chain(overlay) == (overlay, base)
    assert await host.chain(overlay, ToldChain(is_whole=True)) == (overlay,)
    with pytest.raises(ImageError, match="on a network"):
        await host.chain(overlay, ToldChain(reason="on a network"))


async def test_an_overlay_lies_on_its_image_and_on_no_other(host, base, overlay, tmp_path):
    await host.check_overlay(overlay.path, base.path)
    for image in (tmp_path / "other", overlay.path):
        with pytest.raises(ImageError):
            await host.check_overlay(overlay.path, image)
    with pytest.raises(ImageError, match="no qcow2"):
        await host.check_overlay(base.path, overlay.path)


async def test_a_commit_empties_the_overlay_into_the_image(host, base, overlay):
    assert not await host.holds_data(overlay.path)
    write(overlay, 7)
    assert await host.holds_data(overlay.path)
    await host.commit(overlay.path, base)
    assert base.path.read_bytes() == b"\x07" * 65536 + b"\x01" * (MIB - 65536)
    assert not await host.holds_data(overlay.path)
    await host.commit(overlay.path, base)
    assert base.path.read_bytes()[:1] == b"\x07"


async def test_nothing_is_committed_into_another_image(host, base, overlay, tmp_path):
    write(overlay, 7)
    other = tmp_path / "other"
    other.write_bytes(b"\x03" * MIB)
    for image in (BackingImage(other, "raw"), BackingImage(base.path, "qcow2")):
        with pytest.raises(ImageError):
            await host.commit(overlay.path, image)
    assert base.path.read_bytes() == b"\x01" * MIB
    assert other.read_bytes() == b"\x03" * MIB


async def test_a_rebase_changes_the_name_and_no_data(host, overlay, tmp_path):
    write(overlay, 7)
    moved = BackingImage(tmp_path / "moved", "raw")
    moved.path.write_bytes(b"\x05" * MIB)
    await host.rebase(overlay, moved)
    assert (await host.info(overlay)).backing_filename == str(moved.path)
    assert await host.holds_data(overlay.path)
    assert moved.path.read_bytes() == b"\x05" * MIB


async def test_a_bitmap_goes_and_the_others_stay(host, overlay):
    for name in ("one", "two"):
        run("qemu-img", "bitmap", "--add", "-f", "qcow2", str(overlay.path), name)
    await host.remove_bitmap(overlay.path, "one")
    assert (await host.info(overlay)).bitmaps == {"two"}
    with pytest.raises(ImageError):
        await host.remove_bitmap(overlay.path, "one")


async def test_an_image_is_served_with_what_lies_below_it(host, base, overlay):
    write(overlay, 7)
    buffers = BufferPool(16 * MIB)
    seen = bytearray()
    async with (
        host.serve((overlay, base), "vda") as address,
        open_nbd_stream(address, "vda", buffers) as stream,
    ):
        assert stat.S_ISSOCK(address.path.stat().st_mode)
        async for piece in stream.chunks():
            seen += piece.data
    assert bytes(seen) == b"\x07" * 65536 + b"\x01" * (MIB - 65536)
    assert not address.path.exists()


async def test_an_image_that_is_missing_is_not_served(host, overlay, tmp_path):
    with pytest.raises(ImageError):
        async with host.serve((BackingImage(tmp_path / "gone", "raw"),), "vda"):
            raise AssertionError


async def test_an_image_is_read_as_it_is(host, base, tmp_path):
    buffers = BufferPool(16 * MIB)
    async with host.open_image(base.path, buffers) as stream:
        seen = b"".join([bytes(piece.data) async for piece in stream.chunks()])
    assert seen == b"\x01" * MIB
    link = tmp_path / "link"
    link.symlink_to(base.path)
    async with host.open_image(link, buffers) as stream:
        assert stream.size_bytes == MIB
    with pytest.raises(ImageError):
        async with host.open_image(link, buffers, follow=False):
            raise AssertionError

"""One suite for everything that claims to be the machine that has the images."""

import errno
import os
import pwd
import stat
from pathlib import Path
from uuid import uuid4

import pytest

from lab.process import run
from virtbackup_async.errors import ImageError, LockHeldError, StorageError
from virtbackup_async.host import signs
from virtbackup_async.host.interface import ImageHost, NewStateFile
from virtbackup_async.host.local import LocalHost
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.sources.file import open_image_stream
from virtbackup_async.images.sources.nbd import open_nbd_stream
from virtbackup_async.model.domain import BackingImage, ToldChain
from virtbackup_async.model.qcow2_options import Qcow2Options

MIB = 1 << 20


@pytest.fixture(params=[LocalHost])
def host(request, tmp_path_factory, monkeypatch) -> ImageHost:
    monkeypatch.setattr(signs, "_DIRECTORY", tmp_path_factory.mktemp("signs"))
    return request.param(tmp_path_factory.mktemp("locks"))


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
        async for piece in stream.pieces():
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
        seen = b"".join([bytes(piece.data) async for piece in stream.pieces()])
    assert seen == b"\x01" * MIB
    link = tmp_path / "link"
    link.symlink_to(base.path)
    async with host.open_image(link, buffers) as stream:
        assert stream.size_bytes == MIB
    with pytest.raises(ImageError):
        async with host.open_image(link, buffers, follow=False):
            raise AssertionError


DIGITS = "0a0b0c0d"


@pytest.fixture
def fresh(tmp_path):
    """What is restored."""
    path = tmp_path / "restored"
    path.write_bytes(b"\x09" * MIB)
    return path


async def filled(host, path, fresh, wrap=None):
    """A replacement whose new image is written, and not yet in its place."""
    replacement = await host.prepare_replacement(path, DIGITS, wrap)
    async with open_image_stream(fresh, BufferPool(16 * MIB)) as stream:
        await replacement.fill(stream, lambda _data_bytes: None)
    return replacement


def beside(path):
    """What lies beside an image and has a part of its name."""
    return sorted(one.name for one in path.parent.iterdir() if one.name.startswith(path.name + "."))


async def test_an_image_is_replaced_and_the_old_one_is_kept(host, base, fresh):
    base.path.chmod(0o640)
    replacement = await filled(host, base.path, fresh)
    assert base.path.read_bytes() == b"\x01" * MIB
    await replacement.swap()
    assert base.path.read_bytes() == fresh.read_bytes()
    assert stat.S_IMODE(base.path.stat().st_mode) == 0o640
    kept = await replacement.keep_old("20260301-021500")
    assert kept.read_bytes() == b"\x01" * MIB
    assert beside(base.path) == [kept.name]


async def test_no_kept_image_takes_the_place_of_another(host, base, fresh):
    kept = set()
    for _ in range(3):
        replacement = await filled(host, base.path, fresh)
        await replacement.swap()
        kept.add(await replacement.keep_old("20260301-021500"))
    assert sorted(map(str, kept)) == sorted(str(base.path.parent / n) for n in beside(base.path))
    assert len(kept) == 3


@pytest.mark.parametrize("swapped", [False, True])
async def test_an_undone_replacement_leaves_the_old_image_alone(host, base, fresh, swapped):
    replacement = await filled(host, base.path, fresh)
    inode = base.path.stat().st_ino
    if swapped:
        await replacement.swap()
    await replacement.undo()
    await replacement.undo()
    assert base.path.stat().st_ino == inode
    assert base.path.read_bytes() == b"\x01" * MIB
    assert beside(base.path) == []


async def test_an_undo_needs_no_look_at_the_old_image(host, base, fresh, monkeypatch):
    """One that fails would not prove that it is gone; a removed one is lost."""
    replacement = await filled(host, base.path, fresh)
    await replacement.swap()
    look = os.stat

    def failing(path, *arguments, **options):
        if str(path).endswith(f"vbk-old-{DIGITS}"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return look(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", failing)
    await replacement.undo()
    monkeypatch.undo()
    assert base.path.read_bytes() == b"\x01" * MIB
    assert beside(base.path) == []


async def test_where_there_was_no_image_an_undo_leaves_none(host, tmp_path, fresh):
    path = tmp_path / "new.raw"
    replacement = await filled(host, path, fresh)
    await replacement.swap()
    assert path.read_bytes() == fresh.read_bytes()
    assert await replacement.keep_old("20260301-021500") is None
    await replacement.undo()
    assert not path.exists()


async def test_the_old_image_can_be_given_up(host, base, fresh):
    replacement = await filled(host, base.path, fresh)
    await replacement.swap()
    await replacement.forget_old()
    assert beside(base.path) == []


async def test_a_link_stays_and_the_file_that_it_leads_to_is_replaced(host, base, fresh, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(base.path)
    replacement = await filled(host, link, fresh)
    assert replacement.image == base.path.resolve()
    await replacement.swap()
    await replacement.forget_old()
    assert link.is_symlink()
    assert base.path.read_bytes() == fresh.read_bytes()


async def test_a_raw_stream_becomes_a_qcow2_image_if_that_is_wanted(host, base, fresh):
    replacement = await filled(host, base.path, fresh, Qcow2Options())
    await replacement.swap()
    assert (await host.info(BackingImage(base.path, "qcow2"))).virtual_size == MIB


@pytest.mark.parametrize("name", ["web.raw", "w" * 250])
@pytest.mark.parametrize("swapped", [False, True])
async def test_what_a_death_leaves_is_found(host, tmp_path, fresh, name, swapped):
    """Also beside an image whose name is so long that theirs are cut."""
    image = tmp_path / name
    image.write_bytes(b"\x01")
    other = tmp_path / "web.raw.vbk-restore-mine"
    other.write_bytes(b"\x01")
    replacement = await filled(host, image, fresh)
    if swapped:
        await replacement.swap()
    (left,) = await host.replacement_leftovers(image)
    assert left.read_bytes() == (b"\x01" if swapped else fresh.read_bytes())
    assert left != other
    assert await host.replacement_leftovers(tmp_path / "gone" / "image") == ()


async def test_only_regular_files_are_replaced(host, tmp_path):
    for path in (tmp_path, tmp_path / "gone" / "image"):
        with pytest.raises(StorageError):
            await host.prepare_replacement(path, DIGITS)


async def test_directories_of_one_file_system_are_told_from_others(host, tmp_path):
    (tmp_path / "a").mkdir()
    here = await host.file_system(tmp_path)
    assert await host.file_system(tmp_path / "a") == here
    assert await host.file_system(Path("/proc")) != here
    with pytest.raises(StorageError):
        await host.file_system(tmp_path / "gone")


async def test_a_domain_is_locked_once_until_its_lock_is_released(host):
    uuid, other = str(uuid4()), str(uuid4())
    assert not await host.is_domain_locked(uuid)
    assert await host.domain_holder(uuid) is None
    lock = await host.lock_domain("web", uuid, "backup")
    assert lock.is_alone
    assert await host.is_domain_locked(uuid)
    assert not await host.is_domain_locked(other)
    holder = await host.domain_holder(uuid)
    assert (holder.pid, holder.doing) == (os.getpid(), "backup")
    assert holder.since is not None
    assert await host.domain_holder(other) is None
    with pytest.raises(LockHeldError, match=r"^web: .*backup") as refused:
        await host.lock_domain("web", uuid, "clean")
    assert refused.value.hint
    (await host.lock_domain("db", other, "backup")).release()
    lock.release()
    assert not await host.is_domain_locked(uuid)
    (await host.lock_domain("web", uuid, "clean")).release()


async def test_the_entries_of_a_directory_are_all_its_names(host, tmp_path):
    (tmp_path / "b").touch()
    (tmp_path / "a").symlink_to("nowhere")
    (tmp_path / "c").mkdir()
    assert await host.entries(tmp_path) == tuple(tmp_path / name for name in "abc")
    for path in (tmp_path / "b", tmp_path / "gone"):
        with pytest.raises(StorageError, match=path.name):
            await host.entries(path)


async def test_a_directory_is_one_also_through_a_link(host, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "round").symlink_to("round")
    (tmp_path / "file").touch()
    assert await host.is_directory(tmp_path / "link")
    for name in ("round", "file", "gone", "file/below", "n" * 300):
        assert not await host.is_directory(tmp_path / name)


async def test_a_file_is_compared_with_the_file_system_of_a_target(host, base, tmp_path):
    assert await host.shares_file_system(base.path, tmp_path)
    assert not await host.shares_file_system(base.path, Path("/proc"))
    assert not await host.shares_file_system(base.path, tmp_path / "gone")
    assert not await host.shares_file_system(tmp_path / "gone", tmp_path)


ME = pwd.getpwuid(os.geteuid()).pw_name


@pytest.fixture
def new(tmp_path):
    """The content of a new file, on this program's machine."""
    source = tmp_path / "source"
    source.write_bytes(b"variables")
    return NewStateFile(source, "web.fd", ME)


async def test_the_state_in_a_directory_is_its_regular_files(host, tmp_path):
    directory = tmp_path / "tpm2"
    directory.mkdir()
    for name in ("b", ".a"):
        (directory / name).touch()
    (directory / "link").symlink_to("b")
    (directory / "sub").mkdir()
    os.mkfifo(directory / "pipe")
    assert await host.list_state(directory) == (directory / ".a", directory / "b")
    assert [await host.is_file(path) for path in sorted(directory.iterdir())] == [
        True, True, False, False, False,
    ]  # fmt: skip
    assert not await host.is_file(directory / "gone")
    for path in (directory / "b", directory / "gone"):
        with pytest.raises(ImageError, match=f"^{path}: "):
            await host.list_state(path)


async def test_a_path_that_leads_nowhere_does_not_exist(host, base, tmp_path):
    await host.check_exists(base.path)
    (tmp_path / "link").symlink_to("gone")
    for name in ("link", "gone"):
        with pytest.raises(ImageError, match=f"{name}: No such file"):
            await host.check_exists(tmp_path / name)


async def test_only_an_empty_directory_is_as_good_as_nothing(host, base, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    (tmp_path / "nowhere").symlink_to("gone")
    assert await host.is_vacant(tmp_path / "gone")
    assert await host.is_vacant(tmp_path / "empty")
    for path in (base.path, tmp_path, tmp_path / "link", tmp_path / "nowhere"):
        assert not await host.is_vacant(path)


async def test_a_file_has_an_owner_with_a_name(host, base, tmp_path):
    assert await host.owner(base.path) == ME
    assert await host.owner(tmp_path / "gone") is None
    assert await host.has_user(ME)
    for name in ("no-such-user", "a\0b", "\udc80", ""):
        assert not await host.has_user(name)


async def test_a_new_file_takes_no_other_ones_place(host, new, tmp_path):
    path = tmp_path / "nvram" / "web.fd"
    with pytest.raises(StorageError, match=r"web\.fd"):
        await host.create_file(path, new)
    path.parent.mkdir()
    await host.create_file(path, new)
    assert path.read_bytes() == b"variables"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    new.source.write_bytes(b"other")
    with pytest.raises(StorageError):
        await host.create_file(path, new)
    assert path.read_bytes() == b"variables"
    assert list(path.parent.iterdir()) == [path]


async def test_a_new_file_is_made_of_no_link(host, new, tmp_path):
    new.source.rename(tmp_path / "secret")
    new.source.symlink_to("secret")
    with pytest.raises(StorageError):
        await host.create_file(tmp_path / "web.fd", new)
    with pytest.raises(StorageError):
        await host.create_directory(tmp_path / "a" / "b" / "tpm2", [new])
    assert not (tmp_path / "web.fd").exists()
    assert list((tmp_path / "a" / "b").iterdir()) == []


async def test_a_new_directory_appears_with_all_its_files(host, new, tmp_path):
    path = tmp_path / "swtpm" / "uuid" / "tpm2"
    files = [NewStateFile(new.source, name, "no-such-user") for name in ("a", "b")]
    await host.create_directory(path, files)
    assert [(one.name, one.read_bytes()) for one in sorted(path.iterdir())] == [
        ("a", b"variables"), ("b", b"variables"),
    ]  # fmt: skip
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o711
    with pytest.raises(StorageError, match="tpm2"):
        await host.create_directory(path, files[:1])
    assert len(list(path.iterdir())) == 2
    assert list(path.parent.iterdir()) == [path]


async def test_a_new_directory_replaces_an_empty_one(host, new, tmp_path):
    path = tmp_path / "uuid" / "tpm2"
    path.mkdir(parents=True)
    await host.create_directory(path, [new])
    assert (path / "web.fd").read_bytes() == b"variables"


async def test_a_link_is_given_to_nobody(host, base, tmp_path):
    await host.give_to(base.path, ME)
    await host.give_to(base.path, "no-such-user")
    (tmp_path / "link").symlink_to(base.path)
    for name in ("link", "gone"):
        with pytest.raises(StorageError, match=name):
            await host.give_to(tmp_path / name, ME)

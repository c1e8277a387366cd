"""qemu/qemu_img.py against the real qemu-img."""

import os
import subprocess
from functools import partial
from pathlib import Path

import pytest
from anyio import create_task_group, to_thread

from virtbackup_async.errors import CorruptError, ImageError
from virtbackup_async.model.domain import BackingImage
from virtbackup_async.qemu import qemu_img


def run(tool, *arguments, cwd=None):
    subprocess.run([tool, *map(str, arguments)], check=True, capture_output=True, cwd=cwd)


@pytest.fixture
def create(tmp_path):
    """Make an image; ``-u`` lets its header name what does not exist."""
    return partial(run, "qemu-img", "create", "-q", "-u", "-f", "qcow2", cwd=tmp_path)


def write(path, pattern, offset, length):
    run("qemu-io", "-f", "qcow2", "-c", f"write -P {pattern} {offset} {length}", path)


async def test_info_tells_size_and_backing_as_recorded(tmp_path, create):
    create("-b", "base.raw", "-F", "raw", tmp_path / "top.qcow2", "3M")
    info = await qemu_img.image_info(tmp_path / "top.qcow2", "qcow2")
    assert (info.virtual_size, info.format) == (3 << 20, "qcow2")
    assert (info.backing_filename, info.backing_filename_format) == ("base.raw", "raw")


async def test_info_of_what_is_no_image_is_one_line(tmp_path):
    (tmp_path / "x").write_bytes(b"not qcow2")
    with pytest.raises(ImageError, match=r"qemu-img info failed: .*qcow2 format") as raised:
        await qemu_img.image_info(tmp_path / "x", "qcow2")
    assert "\n" not in str(raised.value)


async def test_name_with_a_colon_is_a_file(tmp_path, create):
    create("./nbd:x,y=1", "1M")
    assert (await qemu_img.image_info(tmp_path / "nbd:x,y=1", "qcow2")).virtual_size == 1 << 20


async def test_commit_writes_the_overlay_into_its_base(tmp_path, create):
    base, overlay = tmp_path / "base.raw", tmp_path / "overlay"
    base.write_bytes(b"\1" * (1 << 20))
    create("-b", base, "-F", "raw", overlay, "1M")
    write(overlay, 7, 65536, 65536)
    await qemu_img.commit(overlay, BackingImage(base, "raw"))
    expected = bytearray(b"\1" * (1 << 20))
    expected[65536:131072] = b"\7" * 65536
    assert base.read_bytes() == expected


async def test_commit_refuses_what_has_no_base(tmp_path, create):
    create("a", "1M")
    with pytest.raises(ImageError, match="names no file as the image below it: None"):
        await qemu_img.commit(tmp_path / "a", BackingImage(tmp_path / "b", "raw"))


@pytest.mark.parametrize("name", ["base.raw", "./base.raw", "link"])
async def test_commit_finds_the_base_by_any_of_its_names(tmp_path, create, name):
    base = tmp_path / "base.raw"
    base.write_bytes(b"\1" * (1 << 20))
    (tmp_path / "link").symlink_to(base)
    create("-b", name, "-F", "raw", "overlay", "1M")
    write(tmp_path / "overlay", 7, 0, 65536)
    await qemu_img.commit(tmp_path / "overlay", BackingImage(base, "raw"))
    assert base.read_bytes()[:1] == b"\7"


@pytest.mark.parametrize(("base", "base_format"), [("other.raw", "raw"), ("base.raw", "qcow2")])
async def test_commit_refuses_any_other_base(tmp_path, create, base, base_format):
    for name in ("base.raw", "other.raw"):
        (tmp_path / name).write_bytes(b"\1" * (1 << 20))
    create("-b", "base.raw", "-F", "raw", "overlay", "1M")
    write(tmp_path / "overlay", 7, 0, 65536)
    with pytest.raises(ImageError, match=r"lies on base.raw, not on|for raw, not for qcow2"):
        await qemu_img.commit(tmp_path / "overlay", BackingImage(tmp_path / base, base_format))
    assert (tmp_path / "base.raw").read_bytes()[:1] == b"\1"


async def test_overlay_holds_data_once_it_was_written_even_without_its_base(tmp_path, create):
    create("-b", tmp_path / "gone", "-F", "raw", "o", "1M")
    assert not await qemu_img.holds_data(tmp_path / "o")
    (tmp_path / "gone").write_bytes(bytes(1 << 20))
    run("qemu-io", "-f", "qcow2", "-c", "write -z 0 64k", tmp_path / "o")
    (tmp_path / "gone").unlink()
    assert await qemu_img.holds_data(tmp_path / "o")


async def test_check_passes_a_sound_image_and_finds_a_damaged_one(tmp_path, create):
    path = tmp_path / "a"
    create(path, "1M")
    write(path, 7, 0, 65536)
    await qemu_img.check(path, "qcow2")
    data = bytearray(path.read_bytes())
    refcount_table = int.from_bytes(data[48:56], "big")
    data[refcount_table : refcount_table + 8] = bytes(8)
    path.write_bytes(data)
    with pytest.raises(CorruptError, match="image is damaged"):
        await qemu_img.check(path, "qcow2")


async def test_check_of_a_missing_image_is_an_image_error(tmp_path):
    with pytest.raises(ImageError, match="qemu-img check failed"):
        await qemu_img.check(tmp_path / "none", "qcow2")


async def test_missing_tool_is_said_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImageError, match="Install QEMU"):
        await qemu_img.image_info(tmp_path / "a", "qcow2")


async def test_cancelled_call_leaves_no_process(tmp_path, monkeypatch):
    started = tmp_path / "started"
    os.mkfifo(started)
    tool = tmp_path / "qemu-img"
    tool.write_text(f"#!/bin/sh\necho $$ > {started}\nexec sleep 100\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    async with create_task_group() as tasks:
        tasks.start_soon(qemu_img.image_info, tmp_path / "a", "qcow2")
        pid = (await to_thread.run_sync(started.read_text)).strip()
        assert Path(f"/proc/{pid}").exists()
        tasks.cancel_scope.cancel()
    assert not Path(f"/proc/{pid}").exists()

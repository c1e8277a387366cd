"""images/qemu_nbd.py with the real qemu-nbd: what an image consists of, and what it may not be."""

import os
import subprocess

import pytest

from lab.encrypted import encrypted_image
from virtbackup_async.errors import ImageError
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.chains import image_chain
from virtbackup_async.images.nbd_source import open_nbd_stream
from virtbackup_async.images.qemu_nbd import serve_image

CONTENT = os.urandom(1 << 20)


def qemu_img(*words):
    subprocess.run(["qemu-img", *map(str, words)], check=True, capture_output=True)


async def seen(chain):
    async with (
        serve_image(chain, "x") as address,
        open_nbd_stream(address, "x", BufferPool()) as nbd,
    ):
        return b"".join([bytes(chunk.data) async for chunk in nbd.chunks()])


@pytest.fixture
def raw(tmp_path):
    path = tmp_path / "raw"
    path.write_bytes(CONTENT)
    return path


async def test_data_in_another_file_are_read(tmp_path, raw):
    image = tmp_path / "m"
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={tmp_path}/d", image, "1M")
    qemu_img("convert", "-n", "-f", "raw", "-O", "qcow2", raw, image)
    assert await seen(await image_chain(image, "qcow2")) == CONTENT


async def test_a_data_file_below_an_overlay_is_read(tmp_path, raw):
    image, top = tmp_path / "m", tmp_path / "top"
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={tmp_path}/d", image, "1M")
    qemu_img("convert", "-n", "-f", "raw", "-O", "qcow2", raw, image)
    qemu_img("create", "-f", "qcow2", "-b", image, "-F", "qcow2", top)
    assert await seen(await image_chain(top, "qcow2")) == CONTENT


async def test_an_encrypted_image_without_its_key_is_said_in_words(tmp_path):
    image = encrypted_image(tmp_path / "l", "qcow2")
    with pytest.raises(ImageError, match="is encrypted, and its key is not here"):
        await seen(await image_chain(image, "qcow2"))

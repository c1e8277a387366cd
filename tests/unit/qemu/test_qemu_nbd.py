"""qemu/qemu_nbd.py with the real qemu-nbd: what an image consists of, and what it may not be."""

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from fakes.moved_clock import moved_clock
from lab.encrypted import encrypted_image
from virtbackup_async.errors import ImageError, NbdConnectionError
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.chains import image_chain
from virtbackup_async.images.sources.nbd import open_nbd_stream
from virtbackup_async.model.domain import BackingImage, ToldChain
from virtbackup_async.nbd.protocol.constants import SILENCE_TIMEOUT_S
from virtbackup_async.qemu.qemu_nbd import serve_image

CONTENT = os.urandom(1 << 20)


def qemu_img(*words):
    subprocess.run(["qemu-img", *map(str, words)], check=True, capture_output=True)


async def seen(chain):
    async with (
        serve_image(chain, "x") as address,
        open_nbd_stream(address, "x", BufferPool()) as nbd,
    ):
        return b"".join([bytes(chunk.data) async for chunk in nbd.pieces()])


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


async def test_data_are_read_from_where_the_xml_says_they_are(tmp_path, raw):
    """Whatever the header says: libvirt goes by the XML."""
    image, moved = tmp_path / "m", tmp_path / "moved"
    option = f"data_file={tmp_path}/d,data_file_raw=on"
    qemu_img("create", "-f", "qcow2", "-o", option, image, "1M")
    qemu_img("convert", "-n", "-f", "raw", "-O", "qcow2", raw, image)
    (tmp_path / "d").rename(moved)
    (tmp_path / "d").write_bytes(bytes(1 << 20))
    chain = await image_chain(image, "qcow2", ToldChain(data_file=moved))
    assert chain[0].files == (image, moved)
    assert await seen(chain) == CONTENT


async def test_a_data_file_below_an_overlay_is_read(tmp_path, raw):
    image, top = tmp_path / "m", tmp_path / "top"
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={tmp_path}/d", image, "1M")
    qemu_img("convert", "-n", "-f", "raw", "-O", "qcow2", raw, image)
    qemu_img("create", "-f", "qcow2", "-b", image, "-F", "qcow2", top)
    assert await seen(await image_chain(top, "qcow2")) == CONTENT


async def test_an_image_that_cannot_be_looked_at_is_an_error_of_the_image(tmp_path):
    # Any error but that of a file that is not there; a failing disk gives EIO here.
    chain = [BackingImage(tmp_path / ("x" * 300), "raw")]
    with pytest.raises(ImageError, match="cannot inspect the image"):
        async with serve_image(chain, "vda"):
            pass


async def test_an_encrypted_image_without_its_key_is_said_in_words(tmp_path):
    image = encrypted_image(tmp_path / "l", "qcow2")
    with pytest.raises(ImageError, match="is encrypted, and its key is not available"):
        await seen(await image_chain(image, "qcow2"))


def servers_of(image):
    """The processes that were told of this image."""
    found = []
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if process.name.isdigit() and os.fsencode(image) in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return found


async def all_ended(image):
    while servers_of(image):
        await anyio.sleep(0)


@pytest.fixture
def hanging(tmp_path):
    """An image that is opened without end."""
    path = tmp_path / "hanging"
    os.mkfifo(path)
    return [BackingImage(path, "raw")]


async def test_a_server_that_does_not_begin_is_given_up(hanging, monkeypatch):
    failed = anyio.Event()

    async def serve():
        with pytest.raises(ImageError, match=r"did not open the image within 300 s") as caught:
            await seen(hanging)
        assert "storage" in caught.value.hint
        failed.set()

    with moved_clock(monkeypatch) as clock:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            while not servers_of(hanging[0].path):
                await anyio.sleep(0)
            clock.move(SILENCE_TIMEOUT_S + 1)
            await failed.wait()
    await all_ended(hanging[0].path)


async def test_a_start_that_is_cancelled_leaves_no_server(hanging):
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(seen, hanging)
        # The program that was started, and the server that it made.
        while len(servers_of(hanging[0].path)) < 2:
            await anyio.sleep(0)
        tasks.cancel_scope.cancel()
    await all_ended(hanging[0].path)


async def test_a_server_that_falls_silent_is_told_and_ended(raw, monkeypatch):
    chain = [BackingImage(raw, "raw")]
    failed = anyio.Event()

    async def read(stream):
        with pytest.raises(NbdConnectionError, match="the server was silent for 300 s"):
            [bytes(chunk.data) async for chunk in stream.pieces()]
        failed.set()

    with moved_clock(monkeypatch) as clock:
        async with (
            serve_image(chain, "x") as address,
            open_nbd_stream(address, "x", BufferPool()) as stream,
            anyio.create_task_group() as tasks,
        ):
            (server,) = servers_of(raw)
            os.kill(server, signal.SIGSTOP)
            tasks.start_soon(read, stream)
            while not failed.is_set():
                clock.move(SILENCE_TIMEOUT_S + 1)
                await anyio.sleep(0)
    await all_ended(raw)

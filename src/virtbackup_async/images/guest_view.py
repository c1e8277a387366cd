"""An image as its guest sees it: a stream of what ``qemu-nbd`` serves of it and of those below.

Called by ``export`` for images that only QEMU can take apart. The server is a child of this
process, listens in a directory that is ours alone, and ends with the block.
"""

import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from anyio import sleep

from virtbackup_async.errors import ImageError
from virtbackup_async.images.background import open_background
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.nbd_source import open_nbd_stream
from virtbackup_async.images.stream import DiskStream
from virtbackup_async.model.domain import BackingImage
from virtbackup_async.nbd import UnixAddress
from virtbackup_async.processes import run_program

_LOOK_AGAIN_S: Final = 0.01


@asynccontextmanager
async def open_guest_view(image: BackingImage, buffers: BufferPool) -> AsyncGenerator[DiskStream]:
    """Stream what a guest sees of ``image``; its headers must have been looked at before.

    Raises:
        ImageError: qemu-nbd is missing, or cannot open the image.
        NbdError: it failed.
    """
    # Not beside the image: the path of a socket may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="virtbackup-") as directory:
        server = _Server(image, Path(directory))
        async with open_background() as tasks:
            tasks.start_soon(server.run, name=f"serve {image.path.name}")
            await server.wait_until_it_listens()
            async with open_nbd_stream(UnixAddress(server.socket), "", buffers) as stream:
                yield stream


class _Server:
    def __init__(self, image: BackingImage, directory: Path) -> None:
        self.socket = directory / "socket"
        self._image = image
        # Written when it listens.
        self._pid_file = directory / "pid"
        self._failure: ImageError | None = None

    async def run(self) -> None:
        argv = (
            "qemu-nbd", "--read-only", "--persistent", "--format", self._image.format,
            "--socket", str(self.socket), "--pid-file", str(self._pid_file),
            str(self._image.path.absolute()),
        )  # fmt: skip
        try:
            ended = await run_program(argv)
        except OSError as error:
            self._failure = ImageError(
                f"cannot run qemu-nbd: {error.strerror}", hint="Install QEMU's tools (qemu-utils)."
            )
        else:
            why = ended.last_words.removeprefix("qemu-nbd: ")
            self._failure = ImageError(f"qemu-nbd failed: {why}")

    async def wait_until_it_listens(self) -> None:
        while not self._pid_file.exists():
            if self._failure is not None:
                raise self._failure
            await sleep(_LOOK_AGAIN_S)

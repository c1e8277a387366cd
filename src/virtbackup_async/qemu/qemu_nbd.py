"""``qemu-nbd`` serves an image and its backing files as a guest would see them.

Used for shut-off domains, which have no QEMU to do it, and for restored images. The image is only
read, and not locked: its domain can be started in the meantime, and the caller must notice that.
The server ends when its one client disconnects, so none outlives a killed process. If it hangs
because its storage does, the wait for it has an end.

An image's header can name any file of the host. So the caller finds and checks the backing files,
and QEMU is given exactly those.
"""

import os
import shutil
import signal
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from stat import S_ISBLK
from typing import Any, Final

import msgspec
from anyio import CancelScope, fail_after, to_thread

from virtbackup_async.errors import ImageError
from virtbackup_async.files.socket_directory import make_socket_directory
from virtbackup_async.model.domain import BackingImage
from virtbackup_async.nbd import UnixAddress
from virtbackup_async.nbd.protocol.constants import SILENCE_TIMEOUT_S
from virtbackup_async.processes import run_program

_PREFIX: Final = "virtbackup-nbd-"
_WANTS_KEY: Final = "key-secret"


@asynccontextmanager
async def serve_image(
    chain: Sequence[BackingImage], name: str, *, bitmap: str | None = None
) -> AsyncGenerator[UnixAddress]:
    """Serve an image to one client, once.

    Args:
        chain: the image and its backing files, nearest first.
        name: the export's name.
        bitmap: a dirty bitmap of the image to export with it.

    Raises:
        ImageError: an image cannot be opened (in time), or has no such bitmap.
    """
    with CancelScope(shield=True):
        directory = await to_thread.run_sync(make_socket_directory, _PREFIX)
    socket, pid_file = directory / "socket", directory / "pid"
    options = ["--bitmap", bitmap] if bitmap else []
    try:
        nodes = await to_thread.run_sync(_nodes, chain)
        await _start(
            "qemu-nbd", "--fork", "--read-only", "--pid-file", os.fspath(pid_file),
            "--socket", os.fspath(socket), "--export-name", name, *options,
            "json:" + msgspec.json.encode(nodes).decode(),
        )  # fmt: skip
        yield UnixAddress(socket)
    finally:
        with CancelScope(shield=True):
            await to_thread.run_sync(_end, pid_file, socket)
            await to_thread.run_sync(shutil.rmtree, directory, True)  # noqa: FBT003 -- errors ignored


async def _start(*argv: str) -> None:
    try:
        with fail_after(SILENCE_TIMEOUT_S):
            ended = await run_program(argv)
    except TimeoutError as error:
        raise ImageError(
            f"qemu-nbd did not open the image within {SILENCE_TIMEOUT_S} s",
            hint="Check the storage of the image and of its backing files.",
        ) from error
    except OSError as error:
        raise ImageError(
            f"qemu-nbd cannot be started: {error.strerror}",
            hint="Install QEMU's image tools (qemu-utils, qemu-img).",
        ) from error
    if ended.returncode != 0 and _WANTS_KEY in ended.last_words:
        raise ImageError(
            "the image is encrypted, and its key is not available",
            hint="Restore it as it is, or export it in its own format.",
        )
    if ended.returncode != 0:
        raise ImageError(f"qemu-nbd: {ended.last_words}")


def _nodes(chain: Sequence[BackingImage]) -> dict[str, Any]:
    """Describe the images to QEMU, with everything that it would look up itself. Blocks."""
    image, *below = chain
    node: dict[str, Any] = {
        "driver": image.format,
        "read-only": True,
        "force-share": True,
        "file": _file(image.path),
    }
    if image.format == "qcow2":
        node["backing"] = _nodes(below) if below else None
        if image.data_file is not None:
            node["data-file"] = _file(image.data_file)
    return node


def _file(path: Path) -> dict[str, str]:
    try:
        is_device = S_ISBLK(path.stat().st_mode)
    except OSError as error:
        raise ImageError(f"cannot inspect the image {path}: {error.strerror}") from error
    return {
        "driver": "host_device" if is_device else "file",
        "filename": os.fspath(path.absolute()),
    }


def _end(pid_file: Path, socket: Path) -> None:
    """Kill the server if it still runs: it only reads, and a read can hang. Blocks."""
    try:
        numbers = [int(pid_file.read_text())]
    except (OSError, ValueError):
        # It writes its PID once everything is open; by then it is in a session of its own.
        numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    for number in numbers:
        with suppress(OSError):
            if os.fsencode(socket) in Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0"):
                os.kill(number, signal.SIGKILL)

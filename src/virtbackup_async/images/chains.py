"""Finds the backing chain of a disk: its image and all backing files.

The domain's XML decides, because libvirt passes it on to QEMU; where the XML leaves something open,
the header of each image decides. A guest that can write its image's header can lie there. So a
format is never guessed, and a name in a header must be a path.
"""

import os
from itertools import count
from pathlib import Path
from stat import S_ISBLK, S_ISREG
from typing import Final

from anyio import to_thread
from msgspec.structs import replace

from virtbackup_async.errors import ImageError
from virtbackup_async.model.domain import BackingImage, ToldChain
from virtbackup_async.qemu import qemu_img
from virtbackup_async.qemu.qemu_img import ImageInfo

MAX_CHAIN_DEPTH: Final = 64


async def image_chain(
    path: Path,
    format: str,  # noqa: A002 -- QEMU's word
    told: ToldChain = ToldChain(),  # noqa: B008 -- it cannot be changed
) -> tuple[BackingImage, ...]:
    """Return the image and its backing files, nearest first.

    Like libvirt, this takes a backing file without a recorded format for raw. If it probed, a guest
    with a raw disk could write a qcow2 header into it that names any file of the host.

    Raises:
        ImageError: an image cannot be read, a name is not a path, or the chain is circular or
            deeper than ``MAX_CHAIN_DEPTH``.
    """
    chain: list[BackingImage] = []
    seen: set[str] = set()
    below: BackingImage | None = BackingImage(path, format, told.data_file)
    for depth in count():
        if below is None:
            break
        real = await to_thread.run_sync(_checked, below.path)
        if real in seen or depth > MAX_CHAIN_DEPTH:
            raise ImageError(f"backing chain of {path} has no end: {below.path} comes again")
        seen.add(real)
        header = None if below.format == "raw" else await qemu_img.header_of(below)
        image = below if header is None else _with_header(below, header)
        if image.data_file is not None:
            await to_thread.run_sync(_checked, image.data_file)
        chain.append(image)
        below = _next(image, header, told, depth)
    return tuple(chain)


def _checked(path: Path) -> str:
    """Return the real path of a file or a block device; QEMU would wait for a FIFO."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ImageError(f"image {path} cannot be read: {error.strerror}") from error
    if not (S_ISREG(mode) or S_ISBLK(mode)):
        raise ImageError(f"image {path} is neither a file nor a block device")
    return os.path.realpath(path)


def _with_header(image: BackingImage, header: ImageInfo) -> BackingImage:
    data_file = image.data_file
    if data_file is None and header.data_file:
        data_file = image.path.parent / header.data_file
    is_encrypted = header.encrypted or header.format == "luks"
    return replace(image, data_file=data_file, encrypted=is_encrypted)


def _next(
    image: BackingImage, header: ImageInfo | None, told: ToldChain, depth: int
) -> BackingImage | None:
    if depth < len(told.images):
        return told.images[depth]
    if told.reason:
        raise ImageError(told.reason)
    if told.is_whole or header is None or not header.backing_filename:
        return None
    path = image.path.parent / header.backing_filename
    return BackingImage(path, header.backing_filename_format or "raw")

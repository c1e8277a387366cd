"""``qemu-img``: reads an image's header, checks the image, and commits an overlay.

Called for the images of a chain (``chains.py``) and by ``clean`` for domains that are shut off. A
guest that can write its image's header can lie there. So a format is never guessed, one image is
opened at a time, and a name in a header must be a path: with a ``json:`` or ``nbd:`` name, QEMU
would open whatever the guest asks for.

An undo commits an overlay into its backing file, and QEMU takes that file's name from the overlay's
header. So ``check_overlay`` and ``commit`` first compare the header with the image that the domain
is known to have.
"""

import os
import stat
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from anyio import to_thread

from virtbackup_async.errors import CorruptError, ImageError
from virtbackup_async.files.refusals import close
from virtbackup_async.model.domain import BackingImage
from virtbackup_async.processes import Ended, run_program
from virtbackup_async.qemu.qcow2 import HEAD_BYTES, file_beside, read_head

_T = TypeVar("_T")

_CHECK_IS_CORRUPT: Final = 2
_CHECK_HAS_LEAKS: Final = 3
_CHECK_IS_UNSUPPORTED: Final = 63


class ImageInfo(msgspec.Struct, frozen=True, rename="kebab"):
    """The needed fields of ``qemu-img info`` for one image.

    ``backing_filename`` is the name from the header, relative to the image's directory.
    ``actual_size`` is the space that it takes, in bytes; 0 of a block device.
    """

    virtual_size: int
    format: str
    actual_size: int = 0
    backing_filename: str | None = None
    backing_filename_format: str | None = None
    encrypted: bool = False
    format_specific: dict[str, Any] = msgspec.field(default_factory=dict)

    @property
    def data_file(self) -> str | None:
        """The external file with a qcow2 image's data; None if the image itself has it."""
        return self._specific.get("data-file")

    @property
    def bitmaps(self) -> frozenset[str]:
        """The names of the dirty bitmaps that are stored in a qcow2 image."""
        return frozenset(bitmap["name"] for bitmap in self._specific.get("bitmaps", ()))

    @property
    def good_bitmaps(self) -> frozenset[str]:
        """The bitmaps that are consistent: QEMU stored them before it exited."""
        return frozenset(
            bitmap["name"]
            for bitmap in self._specific.get("bitmaps", ())
            if "in-use" not in bitmap["flags"]
        )

    @property
    def _specific(self) -> dict[str, Any]:
        data = self.format_specific.get("data")
        return data if isinstance(data, dict) else {}


class _MapExtent(msgspec.Struct, frozen=True):
    present: bool


async def image_info(path: Path, format: str) -> ImageInfo:  # noqa: A002 -- QEMU's word
    """Read the header of one image, even while a guest uses it.

    Raises:
        ImageError: it cannot be opened in that format.
    """
    output = await _run("info", "-U", "--output=json", "-f", format, _name_of(path))
    return _decoded(output, ImageInfo, path)


async def header_of(image: BackingImage) -> ImageInfo:
    """Read the header of one image, in which all names must be paths.

    Raises:
        ImageError: it cannot be read, or a name is not a path.
    """
    info = await image_info(image.path, image.format)
    for what, name in (("backing", info.backing_filename), ("data file", info.data_file)):
        if not _is_file_name(name or ""):
            raise ImageError(f"{what} of {image.path} is not a file: {name}")
    return info


async def commit(overlay: Path, image: BackingImage) -> None:
    """Write the data of the qcow2 ``overlay`` into ``image``, which must be its backing file.

    QEMU's locks ensure that no program has either of them open. QEMU empties the overlay after all
    data is in the image, not before. So an interrupted commit can be repeated, and an overlay that
    ``holds_data`` is not committed.

    Raises:
        ImageError: the header names another backing file or another format, or QEMU failed.
    """
    info = await header_of(BackingImage(overlay, "qcow2"))
    await to_thread.run_sync(_check_backing, overlay, info.backing_filename, image.path)
    if info.backing_filename_format != image.format:
        recorded = info.backing_filename_format or "no format"
        raise ImageError(f"{overlay} takes {image.path} for {recorded}, not for {image.format}")
    await _run("commit", "-q", "-f", "qcow2", _name_of(overlay))


def check_overlay(overlay: Path, image: Path) -> None:
    """Make sure that ``image`` is the backing file of a qcow2 overlay. Blocks.

    Raises:
        ImageError: the overlay cannot be read, is not one, has its data in another file, or has
            another backing file.
    """
    head = _head(overlay)
    fields = read_head(head)
    if fields is None:
        raise ImageError(f"{overlay} is no qcow2 image")
    if fields.data_file is not None:
        raise ImageError(f"{overlay} keeps its data in another file: {fields.data_file}")
    _check_backing(overlay, file_beside(head, may_have_backing=False), image)


async def rebase(upper: BackingImage, lower: BackingImage) -> None:
    """Make ``lower`` the backing file in the header of ``upper``; no data is read.

    Raises:
        ImageError: the header cannot be written.
    """
    await _run(
        "rebase", "-q", "-u", "-f", upper.format, "-F", lower.format,
        "-b", _name_of(lower.path), _name_of(upper.path),
    )  # fmt: skip


async def holds_data(overlay: Path) -> bool:
    """Return whether anything was ever written to the qcow2 ``overlay``, zeros included.

    Raises:
        ImageError: it cannot be read.
    """
    # Opens the overlay alone, because its backing file can be missing. No option does that.
    alone = {
        "driver": "qcow2",
        "backing": None,
        "file": {"driver": "file", "filename": _name_of(overlay)},
    }
    name = "json:" + msgspec.json.encode(alone).decode()
    output = await _run("map", "-U", "--output=json", name)
    return any(extent.present for extent in _decoded(output, list[_MapExtent], overlay))


async def remove_bitmap(path: Path, name: str) -> None:
    """Remove a dirty bitmap from a qcow2 image; QEMU's locks ensure that it is not in use.

    Raises:
        ImageError: it cannot be written, or is in use.
    """
    await _run("bitmap", "--remove", "-f", "qcow2", _name_of(path), name)


async def check(path: Path, format: str) -> None:  # noqa: A002
    """Let QEMU check the structure of an image; leaked clusters are harmless.

    Raises:
        CorruptError: the image is damaged.
        ImageError: the check failed.
    """
    name = _name_of(path)
    arguments = ("check", "-U", "--output=json", "-f", format, name)
    result = await _qemu_img(arguments)
    if result.returncode == _CHECK_IS_CORRUPT:
        raise CorruptError(f"image is damaged: {path}", hint=f"See `qemu-img check {name}`.")
    if result.returncode not in {0, _CHECK_HAS_LEAKS, _CHECK_IS_UNSUPPORTED}:
        raise _failed(arguments, result)


def _check_backing(overlay: Path, name: str | None, image: Path) -> None:
    """Make sure that ``name``, from an overlay's header, is the path of ``image``. Blocks.

    Raises:
        ImageError: it is another path or none.
    """
    if not name or not _is_file_name(name):
        raise ImageError(f"{overlay} names no file as the image below it: {name}")
    if os.path.realpath(overlay.parent / name) != os.path.realpath(image):
        raise ImageError(f"{overlay} lies on {name}, not on {image}")


def _head(overlay: Path) -> bytes:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(overlay, flags)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ImageError(f"{overlay} is no regular file")
            return os.pread(fd, HEAD_BYTES, 0)
        finally:
            close(fd)
    except OSError as error:
        raise ImageError(f"cannot read {overlay}: {error.strerror}") from error


def _is_file_name(name: str) -> bool:
    """Return whether QEMU takes a name in a header for a path.

    It takes the part before a colon for a protocol, unless a slash comes first.
    """
    return ":" not in name.partition("/")[0]


def _name_of(path: Path) -> str:
    """Return a name that QEMU can only take for a path, because it begins with a slash."""
    return os.fspath(path.absolute())


def _decoded(output: bytes, type_: type[_T], path: Path) -> _T:
    try:
        return msgspec.json.decode(output, type=type_)
    except msgspec.DecodeError as error:
        raise ImageError(f"qemu-img's output about {path} cannot be read: {error}") from error


async def _run(*arguments: str) -> bytes:
    result = await _qemu_img(arguments)
    if result.returncode != 0:
        raise _failed(arguments, result)
    return result.stdout


async def _qemu_img(arguments: tuple[str, ...]) -> Ended:
    try:
        return await run_program(("qemu-img", *arguments))
    except OSError as error:
        raise ImageError(
            f"cannot run qemu-img: {error.strerror}", hint="Install QEMU's tools (qemu-utils)."
        ) from error


def _failed(arguments: tuple[str, ...], result: Ended) -> ImageError:
    why = result.last_words.removeprefix("qemu-img: ")
    return ImageError(f"qemu-img {arguments[0]} failed: {why}")

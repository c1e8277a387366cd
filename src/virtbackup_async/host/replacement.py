"""Putting a restored image in the place of an existing one, in steps that may be cut anywhere.

::

    web.qcow2.vbk-restore-<token>     the new image, whole, checked and on disk
      link     web.qcow2.vbk-old-<token>  is the old image as well
      rename   web.qcow2                  is the new image: one step, there is no moment between
    when all disks of the domain are swapped
      link     web.qcow2.before-restore-<date>  is the old image as well
      unlink   web.qcow2.vbk-old-<token>

Whoever dies, whenever: ``web.qcow2`` is the old image or the new one, and whole. Undoing renames
the old name back. Used by ``restore_in_place``; all of it blocks but ``fill``.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

from anyio import to_thread
from msgspec import Struct

from virtbackup_async.errors import StorageError
from virtbackup_async.files.durable import give_owner, storage_error, sync_file
from virtbackup_async.images.sinks.sequential import write_qcow2
from virtbackup_async.images.sinks.sequential_file import create_outlet
from virtbackup_async.images.sinks.sparse import write_sparse
from virtbackup_async.images.stream import DiskStream
from virtbackup_async.model.names import beside, kept_path
from virtbackup_async.model.qcow2_options import Qcow2Options
from virtbackup_async.packagers.interface import Progress

NEW = "restore-"
OLD = "old-"


class Swap(Struct):
    """One image that is replaced.

    ``image`` is the file itself, symlinks resolved. With ``wrap``, what comes is a raw disk, and
    the new image a qcow2 image of it.
    """

    image: Path
    token: str
    existed: bool = False
    is_swapped: bool = False
    wrap: Qcow2Options | None = None

    @property
    def new(self) -> Path:
        return beside(self.image, f"{NEW}{self.token}")

    @property
    def old(self) -> Path:
        return beside(self.image, f"{OLD}{self.token}")

    async def fill(self, stream: DiskStream, on_progress: Progress) -> None:
        """Write the new image beside the old one, with its owner, mode and SELinux label."""
        if self.wrap is None:
            await write_sparse(stream, self.new, on_progress)
        else:
            with create_outlet(self.new) as outlet:
                await write_qcow2(stream, outlet, on_progress, self.wrap)
        await to_thread.run_sync(self._take_over)

    def swap(self) -> None:
        """Put the new image in the place of the old one, which keeps a name of its own."""
        try:
            if self.existed:
                os.link(self.image, self.old)
            # No step between: from here on an undo has to put the old one back.
            self.is_swapped = True
            self.new.replace(self.image)
            sync_file(self.image.parent)
        except OSError as error:
            raise storage_error("replace", self.image, error) from error

    def undo(self) -> None:
        """Put the old image back if it was swapped; remove the new one."""
        try:
            if self.is_swapped and self.existed and self.old.exists():
                self.old.replace(self.image)
            elif self.is_swapped and not self.existed:
                self.image.unlink(missing_ok=True)
            self.old.unlink(missing_ok=True)
            self.new.unlink(missing_ok=True)
            sync_file(self.image.parent)
        except OSError as error:
            raise storage_error("put back", self.image, error) from error

    def keep_old(self, date: str) -> Path | None:
        """Give the old image a name to stay by, and return it; None if there was none."""
        if not self.existed:
            return None
        try:
            kept = self._link_old(date)
            self.old.unlink(missing_ok=True)
            sync_file(self.image.parent)
        except OSError as error:
            raise storage_error("keep", self.old, error) from error
        return kept

    def _link_old(self, date: str) -> Path:
        for number in count(1):
            path = kept_path(self.image, date if number == 1 else f"{date}-{number}")
            with suppress(FileExistsError):
                os.link(self.old, path)
                return path
        raise AssertionError  # there is always a number more

    def forget_old(self) -> None:
        """Remove the old image."""
        try:
            self.old.unlink(missing_ok=True)
            sync_file(self.image.parent)
        except OSError as error:
            raise storage_error("remove", self.old, error) from error

    def _take_over(self) -> None:
        try:
            if self.existed:
                owner = self.image.stat()
                give_owner(self.new, owner)
                _copy_label(self.image, self.new)
            sync_file(self.new)
        except OSError as error:
            raise storage_error("write", self.new, error) from error


def prepare_swap(path: Path, token: str, wrap: Qcow2Options | None = None) -> Swap:
    """Look at what is to be replaced. Blocks.

    Raises:
        StorageError: its directory is missing, or it is something else than a regular file.
    """
    image = Path(os.path.realpath(path))
    try:
        mode = image.stat().st_mode
    except FileNotFoundError:
        if not image.parent.is_dir():
            raise StorageError(
                f"cannot restore {path} in place: its directory is missing",
                hint="Mount it, or restore into a directory.",
            ) from None
        return Swap(image, token, wrap=wrap)
    except OSError as error:
        raise storage_error("look at", path, error) from error
    if not stat.S_ISREG(mode):
        raise StorageError(
            f"cannot restore {path} in place: not a regular file",
            hint="Restore into a directory and copy it from there.",
        )
    return Swap(image, token, existed=True, wrap=wrap)


def leftovers(image: Path) -> Iterator[Path]:
    """Yield what a killed restore left beside an image. Blocks."""
    beginnings = tuple(beside(image, kind).name for kind in (NEW, OLD))
    with suppress(OSError), os.scandir(image.parent) as entries:
        for entry in entries:
            if entry.name.startswith(beginnings):
                yield image.with_name(entry.name)


def is_of_restore(path: Path) -> bool:
    """Tell whether a file is one that a restore has beside an image while it works."""
    return any(f".vbk-{kind}" in path.name for kind in (NEW, OLD))


def _copy_label(source: Path, target: Path) -> None:
    # Not every file system has labels, and not everybody may set them; libvirt labels at start.
    with suppress(OSError):
        os.setxattr(target, "security.selinux", os.getxattr(source, "security.selinux"))

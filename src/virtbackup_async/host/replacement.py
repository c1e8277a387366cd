"""Puts a restored image in the place of an existing one; a crash can follow any step.

::

    web.qcow2.vbk-restore-<token>     the new image, complete, checked and on disk
      link     web.qcow2.vbk-old-<token>  is the old image as well
      rename   web.qcow2                  is the new image, in one atomic step
    when all disks of the domain are swapped
      link     web.qcow2.before-restore-<date>  is the old image as well
      unlink   web.qcow2.vbk-old-<token>

Whenever the process or the host dies, ``web.qcow2`` is the complete old or new image. An undo
renames the old image back.
"""

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

from anyio import to_thread
from msgspec import Struct

from virtbackup_async.errors import StorageError
from virtbackup_async.files.durable import give_owner, sync_file
from virtbackup_async.files.refusals import storage_error
from virtbackup_async.images.sinks.sequential import create_sequential_file, write_qcow2
from virtbackup_async.images.sinks.sparse import write_sparse
from virtbackup_async.images.stream import DiskStream
from virtbackup_async.model import names
from virtbackup_async.model.qcow2_options import Qcow2Options


class LocalReplacement(Struct):
    """One image that is replaced, see ``interface.Replacement``.

    ``image`` is the file itself, with symlinks resolved. With ``wrap``, the stream is a raw disk,
    and the new image is a qcow2 image of it.
    """

    image: Path
    token: str
    existed: bool = False
    is_swapped: bool = False
    wrap: Qcow2Options | None = None

    @property
    def new(self) -> Path:
        return names.replacement_path(self.image, self.token)

    @property
    def old(self) -> Path:
        return names.replaced_path(self.image, self.token)

    async def fill(self, stream: DiskStream, on_progress: Callable[[int], None]) -> None:
        """Write the new image next to the old one, with its owner, mode and SELinux label."""
        if self.wrap is None:
            await write_sparse(stream, self.new, on_progress)
        else:
            with create_sequential_file(self.new) as file:
                await write_qcow2(stream, file, on_progress, self.wrap)
        await to_thread.run_sync(self._take_over)

    async def swap(self) -> None:
        await to_thread.run_sync(self._swap)

    def _swap(self) -> None:
        """Put the new image in the place of the old one, which keeps another name."""
        try:
            if self.existed:
                os.link(self.image, self.old)
            # Set before the rename: from here on, an undo must put the old image back.
            self.is_swapped = True
            self.new.replace(self.image)
            sync_file(self.image.parent)
        except OSError as error:
            raise storage_error("replace", self.image, error) from error

    async def undo(self) -> None:
        await to_thread.run_sync(self._undo)

    def _undo(self) -> None:
        """Put the old image back if it was swapped; remove the new one."""
        try:
            if self.is_swapped and self.existed:
                # After an earlier undo the name is missing; only the rename itself shows that.
                with suppress(FileNotFoundError):
                    self.old.replace(self.image)
            elif self.is_swapped and not self.existed:
                self.image.unlink(missing_ok=True)
            self.old.unlink(missing_ok=True)
            self.new.unlink(missing_ok=True)
            sync_file(self.image.parent)
        except OSError as error:
            raise storage_error("put back", self.image, error) from error

    async def keep_old(self, date: str) -> Path | None:
        return await to_thread.run_sync(self._keep_old, date)

    def _keep_old(self, date: str) -> Path | None:
        """Give the old image its final name and return that; None if there was none."""
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
            path = names.kept_path(self.image, date if number == 1 else f"{date}-{number}")
            with suppress(FileExistsError):
                os.link(self.old, path)
                return path
        raise AssertionError  # the numbers do not end

    async def forget_old(self) -> None:
        await to_thread.run_sync(self._forget_old)

    def _forget_old(self) -> None:
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


def prepare_swap(path: Path, token: str, wrap: Qcow2Options | None = None) -> LocalReplacement:
    """Inspect the file that is to be replaced. Blocks.

    Raises:
        StorageError: its directory is missing, or it is not a regular file.
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
        return LocalReplacement(image, token, wrap=wrap)
    except OSError as error:
        raise storage_error("look at", path, error) from error
    if not stat.S_ISREG(mode):
        raise StorageError(
            f"cannot restore {path} in place: not a regular file",
            hint="Restore into a directory and copy it from there.",
        )
    return LocalReplacement(image, token, existed=True, wrap=wrap)


def leftovers(image: Path) -> list[Path]:
    """Return the leftovers of killed restores of an image: new images, then old ones. Blocks."""
    try:
        paths = sorted(image.parent.iterdir())
    except OSError:
        return []
    return [
        *(path for path in paths if names.is_replacement_of(path, image)),
        *(path for path in paths if names.is_replaced_of(path, image)),
    ]


def _copy_label(source: Path, target: Path) -> None:
    # Not every file system has labels, and not every user can set them; libvirt labels at start.
    with suppress(OSError):
        os.setxattr(target, "security.selinux", os.getxattr(source, "security.selinux"))

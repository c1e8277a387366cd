"""The engine's interface to the machine that has the domains' images.

Backup, undo and restore inspect images, run QEMU's tools on them, and remove or replace them, only
through ``ImageHost``. So the images can one day be on another machine than this program and its
targets. ``local.py`` has the implementation for this machine, and tests/contract/test_hosts.py
tests every implementation against these docstrings.

Paths are absolute, on that machine. Images come from guests, so a format is always given, never
guessed, and a name in a header must be a path.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.stream import DiskStream, RateLimit
from virtbackup_async.model.domain import BackingImage, ToldChain
from virtbackup_async.model.lock_holder import LockHolder
from virtbackup_async.model.qcow2_options import Qcow2Options
from virtbackup_async.nbd import UnixAddress
from virtbackup_async.qemu.qcow2 import Qcow2Head
from virtbackup_async.qemu.qemu_img import ImageInfo

_AS_THE_HEADERS_SAY = ToldChain()


class Replacement(Protocol):
    """The replacement of an image by a new one; the old one keeps another name until the end.

    Each step is durable. After a crash between two of them, the image is the old or the new one.
    """

    @property
    def image(self) -> Path:
        """The file that is replaced, with links followed."""

    @property
    def wrap(self) -> Qcow2Options | None:
        """The layout of the new image as qcow2; None if the stream is the image itself."""

    async def fill(self, stream: DiskStream, on_progress: Callable[[int], None]) -> None:
        """Write the new image next to the old one, with its owner, mode and SELinux label.

        Raises:
            StorageError: there is no space, or the directory is not writable.
        """

    async def swap(self) -> None:
        """Put the new image in the place of the old one.

        Raises:
            StorageError: that failed; call ``undo``.
        """

    async def undo(self) -> None:
        """Put the old image back if it was swapped, and remove the new one.

        Raises:
            StorageError: that failed.
        """

    async def keep_old(self, date: str) -> Path | None:
        """Give the old image its final name and return that; None if there was no old image.

        Raises:
            StorageError: that failed; the image keeps its temporary name.
        """

    async def forget_old(self) -> None:
        """Remove the old image.

        Raises:
            StorageError: that failed.
        """


class ImageFiles(Protocol):
    """Files of the host: images, and the files next to them."""

    async def exists(self, path: Path, *, follow: bool = True) -> bool:
        """Return whether a file exists; without ``follow``, a dangling link counts as one.

        Raises:
            StorageError: that cannot be determined.
        """

    async def real_path(self, path: Path) -> Path:
        """Return a path with every link followed; its last component can be missing.

        Raises:
            StorageError: links are circular.
        """

    async def is_directory(self, path: Path) -> bool:
        """Return whether a path leads to a directory that can be reached."""

    async def entries(self, directory: Path) -> tuple[Path, ...]:
        """Return all entries of a directory, sorted by name.

        Raises:
            StorageError: it cannot be read.
        """

    async def check_readable(self, path: Path) -> None:
        """Make sure that an image can be opened for reading.

        Raises:
            ImageError: it cannot.
        """

    async def remove(self, path: Path) -> None:
        """Remove a file durably; a missing one is fine.

        Raises:
            StorageError: it cannot be removed, or its directory is missing.
        """

    async def free_bytes(self, directory: Path) -> int:
        """Return how many bytes an ordinary user can still write there.

        Raises:
            StorageError: the directory is missing.
        """

    async def shares_file_system(self, path: Path, target: Path) -> bool:
        """Return whether a file is on the file system of a directory of this program's machine.

        False if one of them cannot be reached.
        """

    async def file_system(self, directory: Path) -> int:
        """Return a number that identifies the directory's file system on the host.

        Raises:
            StorageError: the directory is missing.
        """

    async def signature(self, path: Path) -> tuple[int, ...]:
        """Return a value that changes whenever something writes to an image.

        Raises:
            ImageError: it is missing.
        """

    async def image_id(self, path: Path) -> str | None:
        """Return an id that an image keeps while it is written to; None if unknown."""

    async def backing_id(self, image: BackingImage, *, with_times: bool) -> str:
        """Return an id that a backing file keeps as long as nothing writes to it.

        Without the times, it keeps the id as long as it is the same file.
        """

    async def prepare_replacement(
        self, path: Path, token: str, wrap: Qcow2Options | None = None
    ) -> Replacement:
        """Inspect the file that is to be replaced; nothing is written yet.

        Args:
            path: the image, which can be missing.
            token: eight hexadecimal digits, for the names of the temporary files next to it.
            wrap: the layout of the new image as qcow2; None to write a stream as it is.

        Raises:
            StorageError: its directory is missing, or it is not a regular file.
        """

    async def replacement_leftovers(self, image: Path) -> tuple[Path, ...]:
        """Return the leftovers of killed replacements of an image: new images, then old ones."""


class ImageTools(Protocol):
    """QEMU's tools, where the images are."""

    async def info(self, image: BackingImage) -> ImageInfo:
        """Read the header of one image, even while a guest uses it.

        Raises:
            ImageError: it cannot be opened in that format.
        """

    async def head(self, path: Path) -> Qcow2Head | None:
        """Read a qcow2 header; None if it cannot be read, or is not one."""

    async def chain(
        self, image: BackingImage, told: ToldChain = _AS_THE_HEADERS_SAY
    ) -> tuple[BackingImage, ...]:
        """Return the image and its backing files, nearest first.

        Args:
            image: the disk's own image.
            told: the chain in the domain's XML; the headers supply the rest.

        Raises:
            ImageError: one cannot be read or is not a file, or the chain is circular.
        """

    async def check_overlay(self, overlay: Path, image: Path) -> None:
        """Make sure that ``image`` is the backing file of a qcow2 overlay.

        Raises:
            ImageError: it is not, or the overlay cannot be read.
        """

    async def holds_data(self, overlay: Path) -> bool:
        """Return whether anything was ever written to a qcow2 overlay, zeros included.

        Raises:
            ImageError: it cannot be read.
        """

    async def commit(self, overlay: Path, image: BackingImage) -> None:
        """Write the data of a qcow2 overlay into ``image``; it can be repeated after a crash.

        Raises:
            ImageError: the overlay has another backing file, one of them is in use, or QEMU failed.
        """

    async def rebase(self, upper: BackingImage, lower: BackingImage) -> None:
        """Make ``lower`` the backing file in the header of ``upper``; no data changes.

        Raises:
            ImageError: the header cannot be written.
        """

    async def remove_bitmap(self, image: Path, name: str) -> None:
        """Remove a dirty bitmap from a qcow2 image.

        Raises:
            ImageError: the image cannot be written, or is in use.
        """

    def serve(
        self, chain: Sequence[BackingImage], name: str, *, bitmap: str | None = None
    ) -> AbstractAsyncContextManager[UnixAddress]:
        """Serve an image and its backing files, read-only over NBD, to one client.

        Args:
            chain: the image and its backing files, nearest first.
            name: the export's name.
            bitmap: a dirty bitmap of the image to export with it.

        Raises:
            ImageError: an image cannot be opened, or has no such bitmap.
        """

    def open_image(
        self,
        path: Path,
        buffers: BufferPool,
        *,
        follow: bool = True,
        limits: Sequence[RateLimit] = (),
    ) -> AbstractAsyncContextManager[DiskStream]:
        """Stream the bytes of an image file.

        Args:
            path: a regular file or a block device.
            buffers: the memory that its data passes through.
            follow: whether to follow a symbolic link.
            limits: the limits of its speed.

        Raises:
            ImageError: it cannot be read, or becomes shorter in the meantime.
        """


class NewStateFile(Struct, frozen=True):
    """A small file to be created.

    Attributes:
        source: its content, on the machine that this program runs on; no link is followed.
        name: in its directory.
        owner: the user it is to belong to, if the machine has that user.
    """

    source: Path
    name: str
    owner: str | None


class StateFiles(Protocol):
    """Small files with an owner: a domain's UEFI variables, the state of its TPM."""

    async def check_exists(self, path: Path) -> None:
        """Make sure that a path leads to something.

        Raises:
            ImageError: it does not, or that cannot be known.
        """

    async def list_state(self, directory: Path) -> tuple[Path, ...]:
        """Return the regular files of a directory by name, links left out.

        Raises:
            ImageError: it cannot be read.
        """

    async def is_file(self, path: Path) -> bool:
        """Return whether a path is a regular file, and not a link."""

    async def is_vacant(self, path: Path) -> bool:
        """Return whether a path is free, or an empty directory.

        Raises:
            StorageError: the directory cannot be read.
        """

    async def owner(self, path: Path) -> str | None:
        """Return the name of the user that a file belongs to; None if it has no name."""

    async def has_user(self, name: str) -> bool:
        """Return whether the machine has a user of that name."""

    async def create_file(self, path: Path, file: NewStateFile) -> None:
        """Create a file durably; it appears complete or not at all.

        Raises:
            StorageError: the path is taken, its directory is missing, or a write failed.
        """

    async def create_directory(self, path: Path, files: Sequence[NewStateFile]) -> None:
        """Create a directory, private to the owner of its files, in place of an empty one.

        It is durable, and appears complete or not at all. Missing parents are made: two of them.

        Raises:
            StorageError: the path is taken, or a write failed; nothing is left.
        """

    async def give_to(self, path: Path, owner: str | None) -> None:
        """Give a file to a user, if the machine has that user, and it has no other name.

        Raises:
            StorageError: it cannot be opened, or is a link.
        """


class DomainLock(Protocol):
    """The lock on a domain, held until ``release``.

    Attributes:
        is_alone: whether it is known that no other user of the machine works on the domain.
    """

    @property
    def is_alone(self) -> bool: ...

    def release(self) -> None:
        """Let others lock the domain; does not block."""


class DomainLocks(Protocol):
    """Locks on the machine's domains. One that dies with its holder blocks nobody."""

    async def lock_domain(self, domain: str, uuid: str, doing: str) -> DomainLock:
        """Lock a domain; do not wait for it.

        Args:
            domain: its name, for messages.
            uuid: the domain's UUID, which names the lock.
            doing: the purpose, for the messages of other processes.

        Raises:
            LockHeldError: another process works on the domain; the message names it if it can.
            StorageError: the lock cannot be made, or others could replace it.
        """

    async def is_domain_locked(self, uuid: str) -> bool:
        """Return whether any process works on a domain, without touching its lock."""

    async def domain_holder(self, uuid: str) -> LockHolder | None:
        """Return the process that works on a domain, without touching its lock; None if none does.

        Its ``doing`` is known if it was locked by :meth:`lock_domain`.
        """


class ImageHost(ImageFiles, ImageTools, StateFiles, DomainLocks, Protocol):
    """The machine that has the images."""
